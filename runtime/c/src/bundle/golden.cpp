#include <zip.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "bundle/bundle.hpp"
#include "error.hpp"

namespace stpm::core {
namespace {

constexpr std::uint64_t kMaxGoldenBytes = 1 << 30;  // decompressed

struct CloseArchive {
    void operator()(zip_t *archive) const { zip_discard(archive); }
};
struct CloseMember {
    void operator()(zip_file_t *file) const { zip_fclose(file); }
};
using Archive = std::unique_ptr<zip_t, CloseArchive>;
using Member = std::unique_ptr<zip_file_t, CloseMember>;

struct Malformed {
    std::string reason;
};

[[noreturn]] void refuse(const Malformed &malformed, const std::string &path) {
    throw Error(STPM_ERROR_BUNDLE,
                path + ": malformed (" + malformed.reason + "); export the bundle again.");
}

Archive open_archive(const Bytes &content) {
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(content.data(), content.size(), 0, &error);
    zip_t *archive = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : nullptr;
    if (archive == nullptr) {
        const std::string reason = zip_error_strerror(&error);
        zip_source_free(source);
        zip_error_fini(&error);
        throw Malformed{reason};
    }
    zip_error_fini(&error);
    return Archive(archive);
}

void check_total_size(zip_t *archive) {
    std::uint64_t total = 0;
    const auto count = static_cast<zip_uint64_t>(zip_get_num_entries(archive, 0));
    for (zip_uint64_t i = 0; i < count; ++i) {
        zip_stat_t stat;
        if (zip_stat_index(archive, i, 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
            throw Malformed{"a member has no size"};
        }
        if (stat.size > kMaxGoldenBytes - total) {
            throw Malformed{"got more than " + std::to_string(kMaxGoldenBytes) +
                            " bytes decompressed, expected at most that"};
        }
        total += stat.size;
    }
}

Bytes read_member(zip_t *archive, const std::string &name) {
    zip_stat_t stat;
    if (zip_stat(archive, name.c_str(), 0, &stat) != 0) throw Malformed{"lacks " + name};
    const Member file(zip_fopen_index(archive, stat.index, 0));
    if (!file) throw Malformed{name + ": " + zip_strerror(archive)};
    Bytes content(stat.size);
    std::size_t done = 0;
    while (done < content.size()) {
        const auto got = zip_fread(file.get(), content.data() + done, content.size() - done);
        if (got <= 0) break;
        done += static_cast<std::size_t>(got);
    }
    // libzip compares the checksum when it meets the end.
    std::uint8_t surplus = 0;
    if (done != content.size() || zip_fread(file.get(), &surplus, 1) != 0) {
        throw Malformed{name + " is damaged"};
    }
    return content;
}

// The value of a key in the header of a .npy file, a Python dictionary that NumPy writes.
std::string_view header_value(std::string_view header, std::string_view key, char end) {
    const std::size_t found = header.find(key);
    if (found == std::string_view::npos) return {};
    const std::size_t start = found + key.size();
    const std::size_t stop = header.find(end, start);
    return stop == std::string_view::npos ? std::string_view{}
                                          : header.substr(start, stop + 1 - start);
}

std::string shape_text(const std::vector<std::size_t> &shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text += (i ? ", " : "") + std::to_string(shape[i]);
    }
    return text + (shape.size() == 1 ? ",)" : ")");
}

// Splits a .npy file, version 1 to 3, into header and data.
std::pair<std::string_view, std::size_t> npy_header(const Bytes &content,
                                                    const std::string &name) {
    constexpr char magic[] = "\x93NUMPY";
    constexpr std::size_t prefix = 8;
    if (content.size() < prefix + 4 || std::memcmp(content.data(), magic, 6) != 0) {
        throw Malformed{name + " is not a NumPy array"};
    }
    const bool is_short = content[6] == 1;
    std::size_t length = static_cast<std::size_t>(content[8]) |
                         static_cast<std::size_t>(content[9]) << 8;
    if (!is_short) {
        length |= static_cast<std::size_t>(content[10]) << 16 |
                  static_cast<std::size_t>(content[11]) << 24;
    }
    const std::size_t start = prefix + (is_short ? 2 : 4);
    if (length > content.size() - start) throw Malformed{name + " is truncated"};
    return {{reinterpret_cast<const char *>(content.data()) + start, length}, start + length};
}

// The first number of the shape, 0 when there is none.
std::size_t first_of_shape(const Bytes &content, const std::string &name) {
    const auto [header, start] = npy_header(content, name);
    const std::string_view shape = header_value(header, "'shape': ", ')');
    std::size_t count = 0;
    for (std::size_t i = 1; i < shape.size() && shape[i] >= '0' && shape[i] <= '9'; ++i) {
        count = count * 10 + static_cast<std::size_t>(shape[i] - '0');
        if (count > kMaxGoldenBytes) return 0;
    }
    return count;
}

// Returns where the data begins, when type and shape are as expected.
std::size_t check_array(const Bytes &content, const std::string &name, std::string_view type,
                        std::size_t item_size, const std::vector<std::size_t> &shape) {
    const auto [header, start] = npy_header(content, name);
    std::uint64_t size = item_size;
    for (const std::size_t side : shape) size = side > kMaxGoldenBytes / size ? 0 : size * side;
    const std::string_view descr = header_value(header, "'descr': '", '\'');
    const std::string_view order = header_value(header, "'fortran_order': ", ',');
    const std::string_view sides = header_value(header, "'shape': ", ')');
    if (descr.substr(0, descr.size() - !descr.empty()) != type || order != "False," ||
        sides != shape_text(shape) || size == 0 || content.size() - start != size) {
        throw Malformed{"got " + name + " of type '" + std::string(descr) + " and shape " +
                        std::string(sides.substr(0, 100)) + ", expected '" + std::string(type) +
                        "' and " + shape_text(shape) + " in C order"};
    }
    return start;
}

std::vector<float> floats(const Bytes &content, std::size_t start) {
    std::vector<float> values((content.size() - start) / sizeof(float));
    for (std::size_t i = 0; i < values.size(); ++i) {
        // Little-endian, whatever the processor is.
        const std::uint8_t *byte = content.data() + start + 4 * i;
        const std::uint32_t bits =
            static_cast<std::uint32_t>(byte[0]) | static_cast<std::uint32_t>(byte[1]) << 8 |
            static_cast<std::uint32_t>(byte[2]) << 16 | static_cast<std::uint32_t>(byte[3]) << 24;
        std::memcpy(&values[i], &bits, sizeof bits);
    }
    return values;
}

std::size_t side(std::int32_t pixels) { return static_cast<std::size_t>(pixels); }

Golden read_golden(const Bytes &content, const Contract &contract) {
    const Archive archive = open_archive(content);
    check_total_size(archive.get());
    const Bytes images = read_member(archive.get(), "images.npy");
    const Bytes maps = read_member(archive.get(), "anomaly_maps.npy");
    const Bytes scores = read_member(archive.get(), "pred_scores.npy");
    const std::size_t count = first_of_shape(images, "images");
    const std::size_t image_start =
        check_array(images, "images", "|u1", 1,
                    {count, side(contract.input.height), side(contract.input.width),
                     contract.channels});
    const std::size_t map_start =
        check_array(maps, "anomaly_maps", "<f4", 4,
                    {count, side(contract.map.height), side(contract.map.width)});
    const std::size_t score_start = check_array(scores, "pred_scores", "<f4", 4, {count});
    Golden golden;
    golden.count = count;
    golden.images.assign(images.begin() + static_cast<std::ptrdiff_t>(image_start), images.end());
    golden.maps = floats(maps, map_start);
    golden.scores = floats(scores, score_start);
    return golden;
}

ScoringMap read_scoring_map(const Bytes &content, Size map, std::size_t roi_count) {
    const Archive archive = open_archive(content);
    check_total_size(archive.get());
    const Bytes labels = read_member(archive.get(), "labels.npy");
    const Bytes scores = read_member(archive.get(), "golden_scores.npy");
    const std::size_t label_start =
        check_array(labels, "labels", "|u1", 1, {side(map.height), side(map.width)});
    const std::size_t score_start =
        check_array(scores, "golden_scores", "<f4", 4,
                    {first_of_shape(scores, "golden_scores"), roi_count});
    ScoringMap result;
    result.labels.assign(labels.begin() + static_cast<std::ptrdiff_t>(label_start), labels.end());
    result.golden_scores = floats(scores, score_start);
    std::vector<bool> is_there(1 + roi_count, false);
    for (const std::uint8_t label : result.labels) {
        if (label > roi_count) throw Malformed{"labels contains a region without a name"};
        is_there[label] = true;
    }
    for (std::size_t i = 1; i <= roi_count; ++i) {
        if (!is_there[i]) throw Malformed{"labels lacks region " + std::to_string(i)};
    }
    return result;
}

Bytes bytes(const Bytes &content, std::size_t start) {
    return {content.begin() + static_cast<std::ptrdiff_t>(start), content.end()};
}

Reference read_reference(const Bytes &content, Size working) {
    const Archive archive = open_archive(content);
    check_total_size(archive.get());
    const Bytes picture = read_member(archive.get(), "reference.npy");
    const Bytes images = read_member(archive.get(), "golden_images.npy");
    const Bytes aligned = read_member(archive.get(), "golden_aligned.npy");
    const Bytes correlations = read_member(archive.get(), "golden_correlations.npy");
    const std::size_t count = first_of_shape(images, "golden_images");
    const std::size_t height = side(working.height), width = side(working.width);
    Reference result;
    result.picture =
        bytes(picture, check_array(picture, "reference", "|u1", 1, {height, width}));
    result.images =
        bytes(images, check_array(images, "golden_images", "|u1", 1, {count, height, width}));
    result.aligned =
        bytes(aligned, check_array(aligned, "golden_aligned", "|u1", 1, {count, height, width}));
    result.correlations = floats(
        correlations, check_array(correlations, "golden_correlations", "<f4", 4, {count}));
    return result;
}

}  // namespace

Golden parse_golden(const Bytes &content, const Contract &contract, const std::string &path) {
    try {
        return read_golden(content, contract);
    } catch (const Malformed &malformed) {
        refuse(malformed, path);
    }
}

Reference parse_reference(const Bytes &content, Size working, const std::string &path) {
    try {
        return read_reference(content, working);
    } catch (const Malformed &malformed) {
        refuse(malformed, path);
    }
}

ScoringMap parse_scoring_map(const Bytes &content, Size map, std::size_t roi_count,
                             const std::string &path) {
    try {
        return read_scoring_map(content, map, roi_count);
    } catch (const Malformed &malformed) {
        refuse(malformed, path);
    }
}

}  // namespace stpm::core
