// The caller's image: its layout, and 16 bits brought to 8 as runtime/images/preprocess.py does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "stpm.h"

namespace stpm::core {

// Rounded weights of more pixels could add up to more than 32 bits hold.
constexpr std::int32_t kMaxImageSide = 1 << 20;

struct Format {
    std::size_t channels;   // samples of a pixel
    std::size_t colours;    // that differ
    std::size_t source[3];  // the sample of red, green, blue
    std::size_t sample;     // bytes of a sample
};

// Throws Error(STPM_ERROR_IMAGE) for none of stpm_format.
Format format_of(std::int32_t format);

// Throws Error(STPM_ERROR_IMAGE) when the image cannot be read as its fields say.
void check_image(const stpm_image &image);

// Throws Error(STPM_ERROR_IMAGE) when colours of a checked image of 8 bits differ.
void check_grey(const stpm_image &image);

// The rows of a checked image.
class Rows {
  public:
    Rows(const stpm_image &image, const Format &format);

    const std::uint8_t *operator[](std::size_t row) const {
        return pixels_ + static_cast<std::ptrdiff_t>(row) * stride_;
    }

  private:
    const std::uint8_t *pixels_;
    std::ptrdiff_t stride_;
};

// Keeps its buffer: images of a size seen before are brought to 8 bits without allocation.
// Serves one thread at a time.
class DepthReducer {
  public:
    // Returns the checked image itself if it has 8 bits, else its copy in 8, valid until the next
    // call. Throws Error(STPM_ERROR_IMAGE) when a sample has more than `bit_depth` bits.
    stpm_image reduce(const stpm_image &image, int bit_depth);

  private:
    std::vector<std::uint8_t> pixels_;
};

}  // namespace stpm::core
