// What the tests of libstpm share.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "stpm.h"

// Ends the test with the place and the values where the condition is false.
#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                             \
        }                                                                             \
    } while (false)

#define CHECK_STATUS(expected, detector, call)                                        \
    do {                                                                              \
        const stpm_status got = (call);                                               \
        if (got != (expected)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s: got \"%s\" (%s)\n", __FILE__, __LINE__, #call, \
                         stpm_status_string(got), stpm_last_error(detector));         \
            std::exit(1);                                                             \
        }                                                                             \
    } while (false)

constexpr std::size_t kChannels[] = {1, 3, 3, 4, 4, 1, 3, 3, 4, 4};  // by stpm_format

inline std::size_t sample_bytes(int format) { return format >= STPM_GREY16 ? 2 : 1; }

// The bytes of `pixels` in golden.py.
inline std::vector<std::uint8_t> noise(std::size_t count, std::uint32_t seed) {
    std::vector<std::uint8_t> bytes(count);
    for (std::size_t i = 0; i < count; ++i) {
        std::uint32_t h = static_cast<std::uint32_t>(i) + seed * 0x9E3779B9U;
        h = (h ^ (h >> 16)) * 0x85EBCA6BU;
        h = (h ^ (h >> 13)) * 0xC2B2AE35U;
        bytes[i] = static_cast<std::uint8_t>(h >> 24);
    }
    return bytes;
}

// The bytes of `image` in golden.py, whose samples of 16 bits hold no more than the camera's.
inline std::vector<std::uint8_t> image_noise(int format, int bit_depth, std::size_t count,
                                             std::uint32_t seed) {
    std::vector<std::uint8_t> bytes = noise(count, seed);
    if (sample_bytes(format) == 1) return bytes;
    for (std::uint8_t &byte : bytes) byte = static_cast<std::uint8_t>(byte >> (16 - bit_depth));
    return bytes;
}

inline std::ifstream open_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        std::fprintf(stderr, "%s: is missing; run python tests/c/golden.py DIR\n", path.c_str());
        std::exit(1);
    }
    return file;
}

template <class T>
std::vector<T> read_values(std::istream &file, std::size_t count) {
    std::vector<T> values(count);
    file.read(reinterpret_cast<char *>(values.data()),
              static_cast<std::streamsize>(count * sizeof(T)));
    CHECK(file.good());
    return values;
}

inline stpm_detector *open_detector(const std::string &path, const char *engine = nullptr) {
    stpm_options options = {};
    options.struct_size = sizeof options;
    options.engine = engine;
    stpm_detector *detector = nullptr;
    CHECK_STATUS(STPM_OK, detector, stpm_open(path.c_str(), &options, &detector));
    return detector;
}

inline stpm_info info_of(stpm_detector *detector) {
    stpm_info info = {};
    info.struct_size = sizeof info;
    CHECK_STATUS(STPM_OK, detector, stpm_get_info(detector, &info));
    return info;
}
