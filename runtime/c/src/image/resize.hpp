// Pillow's antialiased bilinear resize, to the grey level: the port of runtime/images/preprocess.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "image/image.hpp"

namespace stpm::core {

// One direction's weights: what each output pixel takes of which input pixels.
class Weights {
  public:
    // Does nothing when the sizes are those of the last call.
    void prepare(std::int32_t in, std::int32_t out);

    std::size_t size() const { return first_.size(); }  // output pixels
    std::size_t first(std::size_t i) const { return first_[i]; }
    std::size_t count(std::size_t i) const { return count_[i]; }
    std::size_t end(std::size_t i) const { return first_[i] + count_[i]; }
    std::size_t widest() const { return widest_; }  // at least the largest count
    const std::int32_t *of(std::size_t i) const { return weights_.data() + i * widest_; }

  private:
    std::int32_t in_ = 0, out_ = 0;
    std::size_t widest_ = 0;
    std::vector<std::size_t> first_, count_;
    std::vector<std::int32_t> weights_;
    std::vector<double> row_;
};

// Rows on their way from row by row to column by column.
struct ResizeScratch {
    std::vector<std::uint8_t> bytes[2];
    std::vector<std::uint16_t> block;
};

// Keeps its buffers: images of a size seen before are resized without allocation.
// Serves one thread at a time.
class Resizer {
  public:
    // Writes (height, width, channels) to `out`: 3 in RGB, or 1 of an image whose colours are equal.
    // `image` is checked and has 8 bits.
    void resize(const stpm_image &image, std::int32_t height, std::int32_t width,
                std::size_t channels, std::uint8_t *out);

  private:
    void weigh_both(const stpm_image &image, const Format &format, std::size_t channels,
                    std::uint8_t *out);

    Weights columns_, rows_;
    ResizeScratch scratch_;
    std::vector<std::uint8_t> between_, row_;
};

}  // namespace stpm::core
