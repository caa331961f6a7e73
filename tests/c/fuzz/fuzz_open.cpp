// A bundle with any golden.npz, whose hash is right, opens or is refused: the input is that file.
#include <openssl/evp.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "stpm.h"

namespace {

std::string sha256(const void *data, std::size_t size) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    if (EVP_Digest(data, size, digest, &length, EVP_sha256(), nullptr) != 1) __builtin_trap();
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        text += "0123456789abcdef"[digest[i] >> 4];
        text += "0123456789abcdef"[digest[i] & 15];
    }
    return text;
}

void write(const std::string &path, const void *data, std::size_t size) {
    std::ofstream file(path, std::ios::binary);
    file.write(static_cast<const char *>(data), static_cast<std::streamsize>(size));
}

std::string entry(const void *data, std::size_t size) {
    return "{\"sha256\": \"" + sha256(data, size) + "\", \"size_bytes\": " + std::to_string(size) +
           "}";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    static const std::string folder =
        std::filesystem::temp_directory_path() / ("fuzz_open." + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    const std::string manifest =
        R"({"schema_version": 1, "name": "", "method": "stpm", "precision": "fp32", "opset": 20,
        "input": {"size": [24, 32], "batch": [1, 4], "resize": "host"}, "map_size": [12, 16],
        "tolerance": 0.0001, "versions": {}, "provenance": {}, "engines": {"openvino": {
        "calibration": {"image_threshold": 1, "pixel_threshold": 1, "false_alarm_rate": 0.1,
        "image_count": 9, "false_alarm_interval": [0, 1]}, "parity": {}, "built_with": {}}},
        "files": {"model.onnx": )" + entry("fake", 4) + ", \"golden.npz\": " + entry(data, size) +
        "}}";
    write(folder + "/manifest.json", manifest.data(), manifest.size());
    write(folder + "/model.onnx", "fake", 4);
    write(folder + "/golden.npz", data, size);
    stpm_detector *detector = nullptr;
    const stpm_status status = stpm_open(folder.c_str(), nullptr, &detector);
    if (status != STPM_OK && status != STPM_ERROR_BUNDLE && status != STPM_ERROR_PARITY) {
        __builtin_trap();
    }
    stpm_close(detector);
    return 0;
}
