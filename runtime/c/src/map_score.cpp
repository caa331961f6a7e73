#include "map_score.hpp"

#include <algorithm>
#include <cmath>

namespace stpm::core {
namespace {

constexpr std::int32_t kNone = -1;

}  // namespace

std::int64_t map_pixels(std::int64_t area, Size map, Size image) {
    const auto pixels = static_cast<std::int64_t>(image.pixels());
    return (area * static_cast<std::int64_t>(map.pixels()) + pixels - 1) / pixels;
}

MapScorer::MapScorer(const Scoring &scoring, const Bytes &labels,
                     const std::vector<double> &weights, Size map)
    : scoring_(scoring), labels_(&labels), factors_(1 + scoring.roi_count(), 1.0F), map_(map) {
    factors_[0] = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        factors_[1 + i] = static_cast<float>(weights[i]);
    }
    weighted_.resize(map.pixels());
    scores_.resize(scoring.roi_count());
    pixels_.reserve(map.pixels());
    if (scoring.min_area > 0) {
        parents_.resize(map.pixels());
        areas_.resize(map.pixels());
    }
}

const float *MapScorer::weigh(const float *map) {
    const Bytes &labels = *labels_;
    for (std::size_t i = 0; i < weighted_.size(); ++i) weighted_[i] = map[i] * factors_[labels[i]];
    return weighted_.data();
}

const std::vector<float> &MapScorer::score(Size image) {
    const std::int64_t needed = map_pixels(scoring_.min_area, map_, image);
    for (std::size_t i = 0; i < scores_.size(); ++i) {
        const auto label = static_cast<std::uint8_t>(1 + i);
        collect(label);
        scores_[i] = 0;
        if (pixels_.empty()) continue;  // a region beyond a golden map that is a corner
        const double share = scoring_.percent / 100 * static_cast<double>(pixels_.size());
        const auto count = std::max<std::size_t>(1, static_cast<std::size_t>(std::ceil(share)));
        scores_[i] = needed > 1 ? peak_of_area(label, needed) : mean_of_highest(count);
    }
    return scores_;
}

void MapScorer::collect(std::uint8_t label) {
    pixels_.clear();
    const Bytes &labels = *labels_;
    for (std::size_t i = 0; i < weighted_.size(); ++i) {
        if (labels[i] == label) pixels_.push_back({weighted_[i], static_cast<std::int32_t>(i)});
    }
}

float MapScorer::mean_of_highest(std::size_t count) {
    const auto is_higher = [](const Pixel &a, const Pixel &b) { return a.value > b.value; };
    const auto end = pixels_.begin() + static_cast<std::ptrdiff_t>(count);
    std::nth_element(pixels_.begin(), end - 1, pixels_.end(), is_higher);
    if (count == 1) return pixels_.front().value;
    double sum = 0;
    for (auto pixel = pixels_.begin(); pixel != end; ++pixel) {
        sum += static_cast<double>(pixel->value);
    }
    return static_cast<float>(sum / static_cast<double>(count));
}

std::int32_t MapScorer::root(std::int32_t place) {
    auto *parents = parents_.data();
    while (parents[place] != place) {
        parents[place] = parents[parents[place]];
        place = parents[place];
    }
    return place;
}

// The highest level at or above which a connected area has so many pixels: they join from the
// highest on. Without such an area it is the region's lowest value.
float MapScorer::peak_of_area(std::uint8_t label, std::int64_t needed) {
    const Bytes &labels = *labels_;
    const auto is_lower = [](const Pixel &a, const Pixel &b) { return a.value < b.value; };
    std::fill(parents_.begin(), parents_.end(), kNone);
    std::make_heap(pixels_.begin(), pixels_.end(), is_lower);
    for (auto end = pixels_.end();; --end) {
        const Pixel highest = pixels_.front();
        std::pop_heap(pixels_.begin(), end, is_lower);
        const std::int32_t area = highest.place;
        parents_[static_cast<std::size_t>(area)] = area;
        areas_[static_cast<std::size_t>(area)] = 1;
        const std::int32_t row = highest.place / map_.width, column = highest.place % map_.width;
        for (std::int32_t y = std::max(row - 1, 0); y <= std::min(row + 1, map_.height - 1); ++y) {
            for (std::int32_t x = std::max(column - 1, 0);
                 x <= std::min(column + 1, map_.width - 1); ++x) {
                const std::int32_t beside = y * map_.width + x;
                const auto index = static_cast<std::size_t>(beside);
                if (labels[index] != label || parents_[index] == kNone) continue;
                const std::int32_t other = root(beside);
                if (other == area) continue;
                parents_[static_cast<std::size_t>(other)] = area;
                areas_[static_cast<std::size_t>(area)] += areas_[static_cast<std::size_t>(other)];
            }
        }
        if (areas_[static_cast<std::size_t>(area)] >= needed) return highest.value;
        if (end - 1 == pixels_.begin()) return highest.value;
    }
}

}  // namespace stpm::core
