#include "image/resize.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "image/clones.hpp"

// GCC unrolls loops of up to 16 turns before its vectoriser can see them.
#if defined(__GNUC__) && !defined(__clang__)
#define STPM_ROLLED _Pragma("GCC unroll 1")
#else
#define STPM_ROLLED
#endif
#if defined(__GNUC__)
#define STPM_INLINE inline __attribute__((always_inline))
#define STPM_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define STPM_INLINE inline
#define STPM_PREFETCH(address) static_cast<void>(address)
#endif

namespace stpm::core {
namespace {

// Rows whose pixels are weighed side by side: two to the four steps of interleave and separate.
constexpr std::size_t kRows = 16;
// Output pixels of these rows that are made at a time, so that all they need is in the first cache.
constexpr std::size_t kStrip = 32;
constexpr std::size_t kCacheLine = 64;  // bytes
// Bytes of a row that are weighed side by side in the other direction.
constexpr std::size_t kLanes = 32;
// Fixed-point digits of a weight, as in Pillow's Resample.c: 8 for the pixel, 2 to spare.
constexpr int kFractionBits = 32 - 8 - 2;
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

std::size_t padded(std::size_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

template <class Value>
void grow(std::vector<Value> &buffer, std::size_t size) {
    if (buffer.size() < size) buffer.resize(size);
}

// The loops of zip, unzip and weigh are plain, for the vectoriser.
template <class Out>
STPM_INLINE void zip(const std::uint8_t *even, const std::uint8_t *odd, std::size_t count,
                     Out *out) {
    for (std::size_t i = 0; i < count; ++i) {
        out[2 * i] = even[i];
        out[2 * i + 1] = odd[i];
    }
}

STPM_INLINE void unzip(const std::uint8_t *in, std::size_t count, std::uint8_t *even,
                       std::uint8_t *odd) {
    for (std::size_t i = 0; i < count; ++i) {
        even[i] = in[2 * i];
        odd[i] = in[2 * i + 1];
    }
}

// Writes `length` bytes of each of 16 rows to scratch.block column by column, in 16 bits, from
// which GCC widens further with one instruction.
STPM_INLINE void interleave(const std::uint8_t *const *rows, std::size_t start, std::size_t length,
                            ResizeScratch &scratch) {
    std::uint8_t *a = scratch.bytes[0].data(), *b = scratch.bytes[1].data();
    const std::size_t half = kRows / 2 * length;
    for (std::size_t r = 0; r < kRows / 2; ++r) {
        zip(rows[r] + start, rows[r + kRows / 2] + start, length, a + 2 * r * length);
    }
    zip(a, a + half, half, b);
    zip(b, b + half, half, a);
    zip(a, a + half, half, scratch.block.data());
}

// The inverse: writes `length` columns of 16 bytes to 16 rows, `stride` bytes apart.
STPM_INLINE void separate(std::uint8_t *columns, std::size_t length, std::uint8_t *out,
                          std::size_t stride) {
    std::uint8_t other[kStrip * 3 * kRows];
    const std::size_t half = kRows / 2 * length;
    unzip(columns, half, other, other + half);
    unzip(other, half, columns, columns + half);
    unzip(columns, half, other, other + half);
    for (std::size_t r = 0; r < kRows / 2; ++r) {
        unzip(other + 2 * r * length, length, out + r * stride, out + (r + kRows / 2) * stride);
    }
}

// Weighs `count` groups of neighbouring pixels that stand `step` values apart.
template <std::size_t kCount, class In>
STPM_INLINE void weigh(const In *source, std::size_t step, const std::int32_t *weights,
                       std::size_t count, std::uint8_t *out) {
    std::int32_t sum[kCount];
    STPM_ROLLED for (std::size_t i = 0; i < kCount; ++i) sum[i] = kHalf;
    for (std::size_t tap = 0; tap < count; ++tap, source += step) {
        const std::int32_t weight = weights[tap];
        STPM_ROLLED for (std::size_t i = 0; i < kCount; ++i) sum[i] += source[i] * weight;
    }
    // No weight is negative, but thousands of rounded ones may add up to more than one.
    STPM_ROLLED for (std::size_t i = 0; i < kCount; ++i) {
        out[i] = static_cast<std::uint8_t>(std::min(sum[i] >> kFractionBits, 255));
    }
}

// Narrows 16 rows of `size` bytes to rows of `stride` bytes. The 16 rows after them are fetched
// from memory meanwhile.
STPM_CLONES void weigh_columns(const Weights &weights, const Format &format,
                               const std::uint8_t *const *rows, std::size_t size,
                               ResizeScratch &scratch, std::uint8_t *out, std::size_t stride) {
    std::uint8_t narrow[kStrip * 3 * kRows];
    const std::size_t step = format.channels * kRows;
    for (std::size_t x = 0; x < weights.size(); x += kStrip) {
        const std::size_t count = std::min(kStrip, weights.size() - x);
        const std::size_t first = weights.first(x);
        const std::size_t start = first * format.channels;
        const std::size_t end = weights.end(x + count - 1) * format.channels;
        interleave(rows, start, std::min(padded(end - start), size - start), scratch);
        for (std::size_t r = kRows; r < 2 * kRows; ++r) {
            for (std::size_t i = start; i < end; i += kCacheLine) STPM_PREFETCH(rows[r] + i);
        }
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint16_t *source =
                scratch.block.data() + (weights.first(x + i) - first) * step;
            const std::int32_t *shares = weights.of(x + i);
            const std::size_t taps = weights.count(x + i);
            if (format.colours == 1) {
                weigh<kRows>(source, step, shares, taps, narrow + i * kRows);
            } else {
                weigh<3 * kRows>(source, step, shares, taps, narrow + i * 3 * kRows);
            }
        }
        separate(narrow, count * format.colours, out + x * format.colours, stride);
    }
}

// Makes one output row of `stride` bytes from the rows at `between`.
STPM_CLONES void weigh_rows(const std::uint8_t *between, std::size_t stride,
                            const std::int32_t *weights, std::size_t count, std::uint8_t *out) {
    for (std::size_t start = 0; start < stride; start += kLanes) {
        weigh<kLanes>(between + start, stride, weights, count, out + start);
    }
}

// Copies a row of pixels to RGB, or to grey.
STPM_CLONES void convert(const std::uint8_t *row, const Format &format, std::size_t width,
                         std::size_t channels, std::uint8_t *out) {
    if (format.channels == channels && format.source[0] == 0) {
        std::memcpy(out, row, channels * width);
        return;
    }
    for (std::size_t x = 0; x < width; ++x) {
        const std::uint8_t *pixel = row + x * format.channels;
        for (std::size_t c = 0; c < channels; ++c) out[channels * x + c] = pixel[format.source[c]];
    }
}

// How an image is read where one channel is wanted of colours that are equal.
Format wanted_format(std::int32_t format, std::size_t channels) {
    const Format whole = format_of(format);
    return channels == 1 ? Format{whole.channels, 1, {0, 0, 0}, 1} : whole;
}

// The most input pixels that the output pixels of a strip need.
std::size_t longest_strip(const Weights &weights) {
    std::size_t longest = 0;
    for (std::size_t x = 0; x < weights.size(); x += kStrip) {
        const std::size_t end = weights.end(std::min(x + kStrip, weights.size()) - 1);
        longest = std::max(longest, end - weights.first(x));
    }
    return longest;
}

}  // namespace

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
        first_[i] = static_cast<std::size_t>(first);
        count_[i] = count;
    }
    in_ = in;
    out_ = out;
}

void Resizer::resize(const stpm_image &image, std::int32_t height, std::int32_t width,
                     std::size_t channels, std::uint8_t *out) {
    const Format format = wanted_format(image.format, channels);
    if (image.height != height || image.width != width) {
        columns_.prepare(image.width, width);
        rows_.prepare(image.height, height);
        weigh_both(image, format, channels, out);
        return;
    }
    const Rows rows(image, format);
    const auto columns = static_cast<std::size_t>(width);
    for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
        convert(rows[y], format, columns, channels, out + y * columns * channels);
    }
}

// Columns before rows, as Pillow does. Each 16 narrowed rows are used while they are in the cache.
void Resizer::weigh_both(const stpm_image &image, const Format &format, std::size_t channels,
                         std::uint8_t *out) {
    // The colours of narrowed rows still stand in the image's order.
    const Format narrow = {format.colours, format.colours,
                           {format.source[0], format.source[1], format.source[2]}, 1};
    const Rows source(image, format);
    const auto height = static_cast<std::size_t>(image.height);
    const std::size_t size = static_cast<std::size_t>(image.width) * format.channels;
    const std::size_t narrow_size = padded(columns_.size() * format.colours);
    const std::size_t room = rows_.widest() + 4 * kRows;  // of narrowed rows
    const std::size_t strip = padded(longest_strip(columns_) * format.channels) * kRows;
    for (auto &bytes : scratch_.bytes) grow(bytes, strip);
    grow(scratch_.block, strip);
    grow(between_, room * narrow_size);
    grow(row_, narrow_size);
    std::size_t top = 0;  // the image's row that the first of between_ was made from
    std::size_t y = 0;
    for (std::size_t start = 0; start < height; start += kRows) {
        if (start + kRows > top + room) {
            const std::size_t needed = rows_.first(y);
            std::memmove(between_.data(), between_.data() + (needed - top) * narrow_size,
                         (start - needed) * narrow_size);
            top = needed;
        }
        const std::uint8_t *rows[2 * kRows];
        for (std::size_t r = 0; r < 2 * kRows; ++r) {
            rows[r] = source[std::min(start + r, height - 1)];
        }
        weigh_columns(columns_, format, rows, size, scratch_,
                      between_.data() + (start - top) * narrow_size, narrow_size);
        for (; y < rows_.size() && rows_.end(y) <= start + kRows; ++y) {
            weigh_rows(between_.data() + (rows_.first(y) - top) * narrow_size, narrow_size,
                       rows_.of(y), rows_.count(y), row_.data());
            convert(row_.data(), narrow, columns_.size(), channels,
                    out + y * columns_.size() * channels);
        }
    }
}

}  // namespace stpm::core
