#include "regions.hpp"

#include <algorithm>

namespace stpm::core {
namespace {

std::int32_t scaled_down(std::int32_t side, std::int32_t image, std::int32_t map) {
    return static_cast<std::int32_t>(std::int64_t{side} * image / map);
}

std::int32_t scaled_up(std::int32_t side, std::int32_t image, std::int32_t map) {
    return static_cast<std::int32_t>((std::int64_t{side} * image + map - 1) / map);
}

}  // namespace

RegionFinder::RegionFinder(Size map_size)
    : size_(map_size), parent_(map_size.pixels()), region_(map_size.pixels()) {
    // Single pixels with gaps of one between them.
    const std::size_t most = static_cast<std::size_t>((map_size.height + 1) / 2) *
                             static_cast<std::size_t>((map_size.width + 1) / 2);
    found_.reserve(most);
    regions_.reserve(most);
}

std::int32_t RegionFinder::root(std::int32_t pixel) {
    auto *parent = parent_.data();
    while (parent[pixel] != pixel) {
        parent[pixel] = parent[parent[pixel]];
        pixel = parent[pixel];
    }
    return pixel;
}

// Joins each pixel with its neighbours before it; the lowest pixel of a region becomes its root.
bool RegionFinder::label(const float *map, float threshold) {
    const std::int32_t width = size_.width;
    const auto pixels = static_cast<std::int32_t>(size_.pixels());
    std::int32_t *parent = parent_.data();
    std::int32_t any = 0;
    for (std::int32_t i = 0; i < pixels; ++i) any |= map[i] > threshold;
    if (!any) return false;
    for (std::int32_t i = 0; i < pixels; ++i) parent[i] = map[i] > threshold ? i : -1;
    for (std::int32_t y = 0, i = 0; y < size_.height; ++y) {
        for (std::int32_t x = 0; x < width; ++x, ++i) {
            if (parent[i] < 0) continue;
            const auto join = [&](std::int32_t other) {
                if (parent[other] < 0) return;
                const std::int32_t a = root(i), b = root(other);
                parent[std::max(a, b)] = std::min(a, b);
            };
            if (x > 0) join(i - 1);
            if (y == 0) continue;
            if (x > 0) join(i - width - 1);
            join(i - width);
            if (x + 1 < width) join(i - width + 1);
        }
    }
    return true;
}

void RegionFinder::measure(const float *map) {
    for (std::int32_t y = 0, i = 0; y < size_.height; ++y) {
        for (std::int32_t x = 0; x < size_.width; ++x, ++i) {
            const auto pixel = static_cast<std::size_t>(i);
            if (parent_[pixel] < 0) continue;
            const auto first = static_cast<std::size_t>(root(i));
            if (first == pixel) {
                region_[first] = static_cast<std::int32_t>(found_.size());
                found_.push_back({y, x, y, x, 0, region_[first], map[i]});
            }
            Found &found = found_[static_cast<std::size_t>(region_[first])];
            found.left = std::min(found.left, x);
            found.right = std::max(found.right, x);
            found.bottom = y;
            ++found.pixels;
            found.peak = std::max(found.peak, map[i]);
        }
    }
}

const std::vector<stpm_region> &RegionFinder::find(const float *map, float threshold,
                                                   Size image_size) {
    found_.clear();
    regions_.clear();
    if (!label(map, threshold)) return regions_;
    measure(map);
    // std::stable_sort would allocate.
    std::sort(found_.begin(), found_.end(), [](const Found &a, const Found &b) {
        return a.peak != b.peak ? a.peak > b.peak : a.number < b.number;
    });
    const double pixel_area = static_cast<double>(std::int64_t{image_size.height} *
                                                  image_size.width) /
                              static_cast<double>(size_.pixels());
    for (const Found &found : found_) {
        regions_.push_back({scaled_down(found.top, image_size.height, size_.height),
                            scaled_down(found.left, image_size.width, size_.width),
                            scaled_up(found.bottom + 1, image_size.height, size_.height),
                            scaled_up(found.right + 1, image_size.width, size_.width),
                            found.pixels * pixel_area, found.peak});
    }
    return regions_;
}

}  // namespace stpm::core
