#include "image/image.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "image/clones.hpp"
#include "error.hpp"

namespace stpm::core {
namespace {

// Scales a row's samples to 8 bits, rounded, and returns the largest. The division in float is
// exact where it matters: quotients below 256 that are no integers are at least 1 / 65535 away from
// one, and floats there at most 1 / 65536 apart.
STPM_CLONES std::uint16_t scale_row(const std::uint8_t *row, std::size_t count, std::int32_t full,
                                    std::uint8_t *out) {
    std::uint16_t largest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t value;
        std::memcpy(&value, row + 2 * i, sizeof value);
        largest = std::max(largest, value);
        const auto scaled = static_cast<float>(value * 255 + full / 2);
        out[i] = static_cast<std::uint8_t>(
            static_cast<std::int32_t>(scaled / static_cast<float>(full)));
    }
    return largest;
}

// Whether any pixel's first three samples differ.
STPM_CLONES bool has_colour(const std::uint8_t *row, std::size_t channels, std::size_t width) {
    unsigned differences = 0;
    for (std::size_t x = 0; x < width; ++x) {
        const std::uint8_t *pixel = row + x * channels;
        differences |= static_cast<unsigned>((pixel[0] ^ pixel[1]) | (pixel[0] ^ pixel[2]));
    }
    return differences != 0;
}

stpm_format eight_bit_format(std::int32_t format) {
    return static_cast<stpm_format>(format - STPM_GREY16);
}

}  // namespace

Format format_of(std::int32_t format) {
    switch (format) {
    case STPM_GREY: return {1, 1, {0, 0, 0}, 1};
    case STPM_RGB: return {3, 3, {0, 1, 2}, 1};
    case STPM_BGR: return {3, 3, {2, 1, 0}, 1};
    case STPM_RGBA: return {4, 3, {0, 1, 2}, 1};
    case STPM_BGRA: return {4, 3, {2, 1, 0}, 1};
    case STPM_GREY16:
    case STPM_RGB16:
    case STPM_BGR16:
    case STPM_RGBA16:
    case STPM_BGRA16: {
        Format deep = format_of(eight_bit_format(format));
        deep.sample = 2;
        return deep;
    }
    }
    throw Error(STPM_ERROR_IMAGE, "got image format " + std::to_string(format) +
                                      ", expected one of stpm_format; set it.");
}

void check_image(const stpm_image &image) {
    const Format format = format_of(image.format);
    if (image.pixels == nullptr) {
        throw Error(STPM_ERROR_IMAGE, "the image's pixels are NULL; set them.");
    }
    if (image.height < 1 || image.width < 1 || image.height > kMaxImageSide ||
        image.width > kMaxImageSide) {
        throw Error(STPM_ERROR_IMAGE, "got an image of " + std::to_string(image.height) + "x" +
                                          std::to_string(image.width) +
                                          " pixels, expected sides of 1 to " +
                                          std::to_string(kMaxImageSide) + "; check them.");
    }
    const auto dense = static_cast<std::ptrdiff_t>(format.channels * format.sample) * image.width;
    if (image.stride != 0 && image.stride < dense && image.stride > -dense) {
        throw Error(STPM_ERROR_IMAGE, "got a stride of " + std::to_string(image.stride) +
                                          " bytes, expected 0 or at least " +
                                          std::to_string(dense) +
                                          ", the length of a row; check it.");
    }
}

void check_grey(const stpm_image &image) {
    const Format format = format_of(image.format);
    if (format.colours == 1) return;
    const Rows rows(image, format);
    for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
        if (has_colour(rows[y], format.channels, static_cast<std::size_t>(image.width))) {
            throw Error(STPM_ERROR_IMAGE,
                        "got an image whose red, green and blue differ, expected grey, which is "
                        "all that the graph takes; export without --grey for a colour camera.");
        }
    }
}

Rows::Rows(const stpm_image &image, const Format &format)
    : pixels_(image.pixels),
      stride_(image.stride != 0
                  ? image.stride
                  : static_cast<std::ptrdiff_t>(format.channels * format.sample) * image.width) {}

stpm_image DepthReducer::reduce(const stpm_image &image, int bit_depth) {
    const Format format = format_of(image.format);
    if (format.sample == 1) return image;
    const std::int32_t full = (1 << bit_depth) - 1;
    const auto height = static_cast<std::size_t>(image.height);
    const std::size_t size = static_cast<std::size_t>(image.width) * format.channels;
    if (pixels_.size() < height * size) pixels_.resize(height * size);
    const Rows rows(image, format);
    std::uint16_t largest = 0;
    for (std::size_t y = 0; y < height; ++y) {
        largest = std::max(largest, scale_row(rows[y], size, full, pixels_.data() + y * size));
    }
    if (largest > full) {
        throw Error(STPM_ERROR_IMAGE, "got a value of " + std::to_string(largest) +
                                          " from a camera of " + std::to_string(bit_depth) +
                                          " bits, expected at most " + std::to_string(full) +
                                          "; train with the camera's --bit-depth.");
    }
    return {pixels_.data(), image.height, image.width, 0, eight_bit_format(image.format)};
}

}  // namespace stpm::core
