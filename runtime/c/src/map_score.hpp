// The score of an image, read off its map, where not the whole image counts or not any size: the
// port of runtime/output/map_score.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bundle/bundle.hpp"

namespace stpm::core {

// How many of a map's pixels cover an area of the image, rounded up.
std::int64_t map_pixels(std::int64_t area, Size map, Size image);

// Its buffers are made once: scoring allocates nothing. Serves one thread at a time.
class MapScorer {
  public:
    // `weights`: a factor for each region of interest; empty for 1 each.
    MapScorer(const Scoring &scoring, const Bytes &labels, const std::vector<double> &weights,
              Size map);

    // Scores by other labels from now on, which live as long as they are used.
    void look(const Bytes &labels) { labels_ = &labels; }

    // Weighs a map; what does not count becomes 0. Valid until the next call.
    const float *weigh(const float *map);

    // Scores each region of interest of the map that was weighed, of an image of that size; to be
    // held against the image's threshold. Valid until the next call.
    const std::vector<float> &score(Size image);

  private:
    struct Pixel {
        float value;
        std::int32_t place;
    };

    float mean_of_highest(std::size_t count);
    float peak_of_area(std::uint8_t label, std::int64_t needed);
    void collect(std::uint8_t label);
    std::int32_t root(std::int32_t place);

    Scoring scoring_;
    const Bytes *labels_;
    std::vector<float> factors_;
    Size map_;
    std::vector<float> weighted_, scores_;
    std::vector<Pixel> pixels_;           // of one region
    std::vector<std::int32_t> parents_;   // of the pixels at or above a level; others have none
    std::vector<std::int32_t> areas_;     // of a root, in pixels
};

}  // namespace stpm::core
