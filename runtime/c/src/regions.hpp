// The connected regions of a map's pixels above a threshold: the port of runtime/result.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bundle.hpp"
#include "stpm.h"

namespace stpm::core {

// Its buffers hold the most regions that a map can have: finding allocates nothing.
// Serves one thread at a time.
class RegionFinder {
  public:
    explicit RegionFinder(Size map_size);

    // Finds the 8-connected regions of the pixels above `threshold`, the highest peak first,
    // in pixels of an image of `image_size`. Valid until the next call.
    const std::vector<stpm_region> &find(const float *map, float threshold, Size image_size);

  private:
    struct Found {
        std::int32_t top, left, bottom, right, pixels, number;
        float peak;
    };

    std::int32_t root(std::int32_t pixel);
    bool label(const float *map, float threshold);
    void measure(const float *map);

    Size size_;
    std::vector<std::int32_t> parent_;  // of each pixel, -1 outside; its region's first pixel
    std::vector<std::int32_t> region_;  // of each first pixel
    std::vector<Found> found_;
    std::vector<stpm_region> regions_;
};

}  // namespace stpm::core
