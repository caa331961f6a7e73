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

RegionFinder::RegionFinder(Size map_size) : size_(map_size) {
    const auto most_runs = static_cast<std::size_t>(map_size.height) *
                           static_cast<std::size_t>((map_size.width + 1) / 2);
    // Single pixels with gaps of one between them.
    const auto most_regions = static_cast<std::size_t>((map_size.height + 1) / 2) *
                              static_cast<std::size_t>((map_size.width + 1) / 2);
    runs_.reserve(most_runs);
    found_.reserve(most_regions);
    regions_.reserve(most_regions);
}

void RegionFinder::collect_row(const float *row, float threshold, std::int32_t y) {
    const std::int32_t width = size_.width;
    std::int32_t any = 0;  // most rows have none, and this loop is vectorised
    for (std::int32_t x = 0; x < width; ++x) any |= row[x] > threshold ? 1 : 0;
    if (!any) return;
    for (std::int32_t x = 0; x < width; ++x) {
        if (!(row[x] > threshold)) continue;
        const auto number = static_cast<std::int32_t>(runs_.size());
        Run run = {y, x, x, number, 0, row[x]};
        for (; x < width && row[x] > threshold; ++x) run.peak = std::max(run.peak, row[x]);
        run.end = x;
        runs_.push_back(run);
    }
}

std::size_t RegionFinder::root(std::size_t run) {
    for (;;) {
        Run &here = runs_[run];
        const auto parent = static_cast<std::size_t>(here.parent);
        if (parent == run) return run;
        here.parent = runs_[parent].parent;
        run = parent;
    }
}

// Joins the runs from `lower` on, a row, with those from `upper` to there, the row above it,
// where they touch, also by a corner.
void RegionFinder::join_rows(std::size_t upper, std::size_t lower) {
    for (std::size_t below = lower; below < runs_.size(); ++below) {
        while (upper < lower && runs_[upper].end < runs_[below].begin) ++upper;
        for (std::size_t i = upper; i < lower && runs_[i].begin <= runs_[below].end; ++i) {
            const std::size_t a = root(i), b = root(below);
            // The first run in reading order stays the root.
            runs_[std::max(a, b)].parent = static_cast<std::int32_t>(std::min(a, b));
        }
    }
}

void RegionFinder::measure() {
    for (std::size_t i = 0; i < runs_.size(); ++i) {
        Run &run = runs_[i];
        const std::size_t first = root(i);
        if (first == i) {
            run.region = static_cast<std::int32_t>(found_.size());
            found_.push_back({run.row, run.begin, run.row, run.end, 0, run.region, run.peak});
        }
        Found &found = found_[static_cast<std::size_t>(runs_[first].region)];
        found.left = std::min(found.left, run.begin);
        found.right = std::max(found.right, run.end);
        found.bottom = run.row + 1;
        found.pixels += run.end - run.begin;
        found.peak = std::max(found.peak, run.peak);
    }
}

const std::vector<stpm_region> &RegionFinder::find(const float *map, float threshold,
                                                   Size image_size, std::int64_t needed) {
    runs_.clear();
    found_.clear();
    regions_.clear();
    std::size_t upper = 0;
    std::int32_t upper_row = 0;
    for (std::int32_t y = 0; y < size_.height; ++y) {
        const std::size_t lower = runs_.size();
        collect_row(map + static_cast<std::ptrdiff_t>(y) * size_.width, threshold, y);
        if (lower == runs_.size()) continue;
        if (y - upper_row == 1) join_rows(upper, lower);
        upper = lower;
        upper_row = y;
    }
    measure();
    // std::stable_sort would allocate.
    std::sort(found_.begin(), found_.end(), [](const Found &a, const Found &b) {
        return a.peak != b.peak ? a.peak > b.peak : a.number < b.number;
    });
    const double pixel_area = static_cast<double>(std::int64_t{image_size.height} *
                                                  image_size.width) /
                              static_cast<double>(size_.pixels());
    for (const Found &found : found_) {
        if (found.pixels < needed) continue;
        regions_.push_back({scaled_down(found.top, image_size.height, size_.height),
                            scaled_down(found.left, image_size.width, size_.width),
                            scaled_up(found.bottom, image_size.height, size_.height),
                            scaled_up(found.right, image_size.width, size_.width),
                            found.pixels * pixel_area, found.peak});
    }
    return regions_;
}

}  // namespace stpm::core
