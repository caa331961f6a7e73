#include "resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.hpp"

// The widest instructions of the processor at hand, chosen when the library is loaded. Sanitizers
// cannot run the code that chooses.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(STPM_SANITIZED)
#define STPM_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define STPM_CLONES
#endif
#if defined(__GNUC__)
#define STPM_INLINE inline __attribute__((always_inline))
#else
#define STPM_INLINE inline
#endif

namespace stpm::core {
namespace {

// Pixels that are weighed side by side; loops over them have a fixed length, for the vectoriser.
constexpr std::size_t kLanes = 32;
constexpr std::size_t kTile = kLanes * kLanes;
// Fixed-point digits of a weight, as in Pillow's Resample.c: 8 for the pixel, 2 to spare.
constexpr int kFractionBits = 32 - 8 - 2;
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

struct Format {
    std::size_t channels;   // bytes of a pixel
    std::size_t colours;    // that differ
    std::size_t source[3];  // the byte of red, green, blue
};

Format format_of(std::int32_t format) {
    switch (format) {
    case STPM_GREY: return {1, 1, {0, 0, 0}};
    case STPM_RGB: return {3, 3, {0, 1, 2}};
    case STPM_BGR: return {3, 3, {2, 1, 0}};
    case STPM_RGBA: return {4, 3, {0, 1, 2}};
    case STPM_BGRA: return {4, 3, {2, 1, 0}};
    }
    throw Error(STPM_ERROR_IMAGE, "got image format " + std::to_string(format) +
                                      ", expected one of stpm_format; set it.");
}

std::size_t padded(std::size_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

std::ptrdiff_t stride_of(const stpm_image &image, const Format &format) {
    const auto dense = static_cast<std::ptrdiff_t>(format.channels) * image.width;
    return image.stride == 0 ? dense : image.stride;
}

const std::uint8_t *row_of(const stpm_image &image, std::ptrdiff_t stride, std::size_t row) {
    return image.pixels + static_cast<std::ptrdiff_t>(row) * stride;
}

// A perfect shuffle: the bytes of both halves in turn.
STPM_INLINE void shuffle(const std::uint8_t *in, std::uint8_t *out) {
    for (std::size_t i = 0; i < kTile / 2; ++i) {
        out[2 * i] = in[i];
        out[2 * i + 1] = in[kTile / 2 + i];
    }
}

// Transposes 32x32 bytes: five perfect shuffles exchange the halves of the 10-bit index.
template <class Out>
STPM_INLINE void transpose(std::uint8_t *tile, Out *out) {
    std::uint8_t other[kTile];
    shuffle(tile, other);
    shuffle(other, tile);
    shuffle(tile, other);
    shuffle(other, tile);
    shuffle(tile, other);
    for (std::size_t i = 0; i < kTile; ++i) out[i] = other[i];
}

// Weighs `count` groups of neighbouring pixels that stand `step` bytes apart.
template <std::size_t kCount, class In>
STPM_INLINE void weigh(const In *source, std::size_t step, const std::int32_t *weights,
                       std::int32_t count, std::uint8_t *out) {
    std::int32_t sum[kCount];
    for (std::size_t i = 0; i < kCount; ++i) sum[i] = kHalf;
    for (std::int32_t tap = 0; tap < count; ++tap, source += step) {
        const std::int32_t weight = weights[tap];
        for (std::size_t i = 0; i < kCount; ++i) sum[i] += source[i] * weight;
    }
    // No weight is negative, but thousands of rounded ones may add up to more than one.
    for (std::size_t i = 0; i < kCount; ++i) {
        out[i] = static_cast<std::uint8_t>(std::min(sum[i] >> kFractionBits, 255));
    }
}

// Copies up to 32 bytes of 32 rows into a tile of `block` so that equal columns lie side by side,
// in 16 bits, from which GCC widens further with one instruction.
STPM_INLINE void interleave(const std::uint8_t *const *rows, std::size_t start, std::size_t size,
                            std::uint16_t *block) {
    std::uint8_t tile[kTile];
    const std::size_t length = std::min(kLanes, size - start);
    for (std::size_t r = 0; r < kLanes; ++r) {
        if (length == kLanes) {
            std::memcpy(tile + r * kLanes, rows[r] + start, kLanes);
        } else {
            std::memset(tile + r * kLanes, 0, kLanes);
            std::memcpy(tile + r * kLanes, rows[r] + start, length);
        }
    }
    transpose(tile, block + start * kLanes);
}

// Narrows 32 rows of `size` bytes to `out`, rows of `stride` bytes.
STPM_CLONES void weigh_columns(const Weights &weights, std::size_t width, const Format &format,
                               const std::uint8_t *const *rows, std::size_t size,
                               std::uint16_t *block, std::uint8_t *narrow, std::uint8_t *out,
                               std::size_t stride) {
    const std::size_t step = format.channels * kLanes;
    std::size_t ready = 0;  // bytes of the rows; no more than needed, so that they stay in the cache
    std::uint8_t *target = narrow;
    for (std::size_t x = 0; x < width; ++x) {
        const auto first = static_cast<std::size_t>(weights.first(x));
        const auto end = first + static_cast<std::size_t>(weights.count(x));
        for (; ready < end * format.channels; ready += kLanes) interleave(rows, ready, size, block);
        if (format.colours == 1) {
            weigh<kLanes>(block + first * step, step, weights.of(x), weights.count(x), target);
            target += kLanes;
        } else {
            weigh<3 * kLanes>(block + first * step, step, weights.of(x), weights.count(x), target);
            target += 3 * kLanes;
        }
    }
    std::uint8_t tile[kTile];
    for (std::size_t start = 0; start < stride; start += kLanes) {
        transpose(narrow + start * kLanes, tile);
        for (std::size_t r = 0; r < kLanes; ++r) {
            std::memcpy(out + r * stride + start, tile + r * kLanes, kLanes);
        }
    }
}

// Makes one output row of `stride` bytes from the rows at `between`.
STPM_CLONES void weigh_rows(const std::uint8_t *between, std::size_t stride,
                            const std::int32_t *weights, std::int32_t count, std::uint8_t *out) {
    for (std::size_t start = 0; start < stride; start += kLanes) {
        weigh<kLanes>(between + start, stride, weights, count, out + start);
    }
}

// Copies a row of pixels to RGB.
STPM_CLONES void convert(const std::uint8_t *row, const Format &format, std::size_t width,
                         std::uint8_t *out) {
    if (format.channels == 3 && format.source[0] == 0) {
        std::memcpy(out, row, 3 * width);
        return;
    }
    for (std::size_t x = 0; x < width; ++x) {
        const std::uint8_t *pixel = row + x * format.channels;
        for (std::size_t c = 0; c < 3; ++c) out[3 * x + c] = pixel[format.source[c]];
    }
}

}  // namespace

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
    const auto dense = static_cast<std::ptrdiff_t>(format.channels) * image.width;
    if (image.stride != 0 && image.stride < dense && image.stride > -dense) {
        throw Error(STPM_ERROR_IMAGE, "got a stride of " + std::to_string(image.stride) +
                                          " bytes, expected 0 or at least the " +
                                          std::to_string(dense) + " of a row; check it.");
    }
}

// Source: precompute_coeffs and normalize_coeffs_8bpc in Pillow's src/libImaging/Resample.c.
void Weights::prepare(std::int32_t in, std::int32_t out) {
    if (in == in_ && out == out_) return;
    in_ = out_ = 0;  // unless all of it succeeds
    const double scale = static_cast<double>(in) / out;
    const double support = std::max(scale, 1.0);
    widest_ = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
    const auto size = static_cast<std::size_t>(out);
    first_.resize(size);
    count_.resize(size);
    weights_.assign(size * widest_, 0);
    row_.resize(widest_);
    for (std::size_t i = 0; i < size; ++i) {
        const double center = (static_cast<double>(i) + 0.5) * scale;
        const auto first = std::max(static_cast<std::int32_t>(center - support + 0.5), 0);
        const auto end = std::min(static_cast<std::int32_t>(center + support + 0.5), in);
        const auto count = static_cast<std::size_t>(end - first);
        double sum = 0;
        for (std::size_t k = 0; k < count; ++k) {
            const double position = static_cast<double>(k) + first - center + 0.5;
            row_[k] = std::max(1.0 - std::abs(position * (1.0 / support)), 0.0);
            sum += row_[k];
        }
        for (std::size_t k = 0; k < count; ++k) {
            const double share = sum == 0 ? row_[k] : row_[k] / sum;
            weights_[i * widest_ + k] = static_cast<std::int32_t>(0.5 + share * (1 << kFractionBits));
        }
        first_[i] = first;
        count_[i] = static_cast<std::int32_t>(count);
    }
    in_ = in;
    out_ = out;
}

void Resizer::resize(const stpm_image &image, std::int32_t height, std::int32_t width,
                     std::uint8_t *out) {
    const Format format = format_of(image.format);
    const std::ptrdiff_t stride = stride_of(image, format);
    const auto in_rows = static_cast<std::size_t>(image.height);
    const auto out_rows = static_cast<std::size_t>(height);
    const auto columns = static_cast<std::size_t>(width);
    if (image.height == height && image.width == width) {
        for (std::size_t y = 0; y < out_rows; ++y) {
            convert(row_of(image, stride, y), format, columns, out + y * columns * 3);
        }
        return;
    }
    columns_.prepare(image.width, width);
    rows_.prepare(image.height, height);
    const std::size_t size = static_cast<std::size_t>(image.width) * format.channels;
    const std::size_t narrow_stride = padded(columns * format.colours);
    block_.resize(std::max(block_.size(), padded(size) * kLanes));
    narrow_.resize(std::max(narrow_.size(), narrow_stride * kLanes));
    between_.resize(std::max(between_.size(), (padded(in_rows) + 1) * narrow_stride));

    for (std::size_t start = 0; start < in_rows; start += kLanes) {
        const std::uint8_t *rows[kLanes];
        for (std::size_t r = 0; r < kLanes; ++r) {
            rows[r] = row_of(image, stride, std::min(start + r, in_rows - 1));
        }
        weigh_columns(columns_, columns, format, rows, size, block_.data(), narrow_.data(),
                      between_.data() + start * narrow_stride, narrow_stride);
    }
    std::uint8_t *row = between_.data() + padded(in_rows) * narrow_stride;
    // The colours still stand in the image's order.
    const Format narrow = {format.colours, format.colours,
                           {format.source[0], format.source[1], format.source[2]}};
    for (std::size_t y = 0; y < out_rows; ++y) {
        weigh_rows(between_.data() + static_cast<std::size_t>(rows_.first(y)) * narrow_stride,
                   narrow_stride, rows_.of(y), rows_.count(y), row);
        convert(row, narrow, columns, out + y * columns * 3);
    }
}

}  // namespace stpm::core
