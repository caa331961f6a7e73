// Pillow's antialiased bilinear resize, to the grey level: the port of runtime/preprocess.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "stpm.h"

namespace stpm::core {

// Rounded weights of more pixels could add up to more than 32 bits hold.
constexpr std::int32_t kMaxImageSide = 1 << 20;

// Throws Error(STPM_ERROR_IMAGE) when the image cannot be read as its fields say.
void check_image(const stpm_image &image);

// One direction's weights: what each output pixel takes of which input pixels.
class Weights {
  public:
    // Does nothing when the sizes are those of the last call.
    void prepare(std::int32_t in, std::int32_t out);

    std::int32_t first(std::size_t i) const { return first_[i]; }
    std::int32_t count(std::size_t i) const { return count_[i]; }
    const std::int32_t *of(std::size_t i) const { return weights_.data() + i * widest_; }

  private:
    std::int32_t in_ = 0, out_ = 0;
    std::size_t widest_ = 0;
    std::vector<std::int32_t> first_, count_, weights_;
    std::vector<double> row_;
};

// Keeps its buffers: images of a size seen before are resized without allocation.
// Serves one thread at a time.
class Resizer {
  public:
    // Writes (height, width, 3) in RGB to `out`; `image` has passed check_image.
    void resize(const stpm_image &image, std::int32_t height, std::int32_t width,
                std::uint8_t *out);

  private:
    Weights columns_, rows_;
    std::vector<std::uint16_t> block_;
    std::vector<std::uint8_t> narrow_, between_;
};

}  // namespace stpm::core
