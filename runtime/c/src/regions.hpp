// The connected regions of a map's pixels above a threshold: the port of runtime/output/result.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bundle/bundle.hpp"
#include "stpm.h"

namespace stpm::core {

// Its buffers hold the most regions that a map can have: finding allocates nothing.
// Serves one thread at a time.
class RegionFinder {
  public:
    explicit RegionFinder(Size map_size);

    // Finds the 8-connected regions of the pixels above `threshold` that have `needed` pixels or
    // more, the highest peak first, in pixels of an image of `image_size`. Valid until the next
    // call.
    const std::vector<stpm_region> &find(const float *map, float threshold, Size image_size,
                                         std::int64_t needed = 0);

  private:
    // Neighbouring pixels of a row above the threshold; `end` is exclusive.
    struct Run {
        std::int32_t row, begin, end;
        std::int32_t parent;  // a run of the same region; the region's first run is its own
        std::int32_t region;  // of a first run
        float peak;
    };
    struct Found {
        std::int32_t top, left, bottom, right, pixels, number;
        float peak;
    };

    void collect_row(const float *row, float threshold, std::int32_t y);
    void join_rows(std::size_t upper, std::size_t lower);
    void measure();
    std::size_t root(std::size_t run);

    Size size_;
    std::vector<Run> runs_;  // in reading order
    std::vector<Found> found_;
    std::vector<stpm_region> regions_;
};

}  // namespace stpm::core
