#include "tiled.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace stpm::core {
namespace {

std::int32_t cell_count(std::int32_t length, std::int32_t stride) {
    return (length + stride - 1) / stride;
}

Size cells(Size size, std::int32_t stride) {
    return {cell_count(size.height, stride), cell_count(size.width, stride)};
}

// What bilinear interpolation takes along an axis, half-pixel centres.
struct Sample {
    std::size_t low, high;
    float share;  // of the higher
};

std::vector<Sample> bilinear_axis(std::int32_t size, std::int32_t target) {
    std::vector<Sample> samples;
    for (std::int32_t i = 0; i < target; ++i) {
        const double position = std::max((i + 0.5) * size / target - 0.5, 0.0);
        const std::int32_t low = std::min(static_cast<std::int32_t>(position), size - 1);
        samples.push_back({static_cast<std::size_t>(low),
                           static_cast<std::size_t>(std::min(low + 1, size - 1)),
                           static_cast<float>(position - low)});
    }
    return samples;
}

float between(const float *values, const Sample &sample) {
    return values[sample.low] + (values[sample.high] - values[sample.low]) * sample.share;
}

struct Level {
    std::int32_t stride;
    Size size, tile;  // in cells
    std::vector<Sample> rows, columns;
    std::vector<float> values, tall;  // `tall`: a row of the map, not yet as wide
};

class TiledRequest : public Request {
  public:
    TiledRequest(std::unique_ptr<Request> request, const Tiling &tiling, Size image,
                 std::size_t channels)
        : request_(std::move(request)),
          tiling_(tiling),
          image_(image),
          channels_(channels),
          rows_(tiling.cuts(image.height, tiling.size.height)),
          columns_(tiling.cuts(image.width, tiling.size.width)) {
        for (const std::int32_t stride : tiling.strides) {
            Level level;
            level.stride = stride;
            level.size = cells(image, stride);
            level.tile = cells(tiling.size, stride);
            level.rows = bilinear_axis(level.size.height, image.height);
            level.columns = bilinear_axis(level.size.width, image.width);
            level.values.resize(level.size.pixels());
            level.tall.resize(static_cast<std::size_t>(level.size.width));
            levels_.push_back(std::move(level));
        }
    }

    std::uint8_t *input(std::size_t count) override {
        if (images_.size() < count * image_.pixels() * channels_) {
            images_.resize(count * image_.pixels() * channels_);
            maps_.resize(count * image_.pixels());
            scores_.resize(count);
        }
        return images_.data();
    }

    Outputs run(std::size_t count) override {
        for (std::size_t i = 0; i < count; ++i) {
            compare(images_.data() + i * image_.pixels() * channels_);
            float *map = maps_.data() + i * image_.pixels();
            multiply(map);
            scores_[i] = *std::max_element(map, map + image_.pixels());
        }
        return {maps_.data(), scores_.data()};
    }

  private:
    // Fills the levels from an image's tiles.
    void compare(const std::uint8_t *image) {
        const std::size_t tiles = rows_.size() * columns_.size();
        for (std::size_t first = 0; first < tiles; first += tiling_.largest_batch) {
            const std::size_t count = std::min(tiling_.largest_batch, tiles - first);
            const std::size_t batch = std::max(count, tiling_.smallest_batch);
            std::uint8_t *inputs = request_->input(batch);
            for (std::size_t i = 0; i < batch; ++i) {
                cut(image, std::min(first + i, tiles - 1),
                    inputs + i * tiling_.size.pixels() * channels_);
            }
            const Outputs outputs = request_->run(batch);
            std::size_t length = 0;
            for (const Level &level : levels_) length += level.tile.pixels();
            for (std::size_t i = 0; i < count; ++i) keep(outputs.maps + i * length, first + i);
        }
    }

    void cut(const std::uint8_t *image, std::size_t tile, std::uint8_t *out) const {
        const auto top = static_cast<std::size_t>(rows_[tile / columns_.size()].start);
        const auto left = static_cast<std::size_t>(columns_[tile % columns_.size()].start);
        const auto stride = static_cast<std::size_t>(image_.width) * channels_;
        const auto bytes = static_cast<std::size_t>(tiling_.size.width) * channels_;
        for (std::size_t y = 0; y < static_cast<std::size_t>(tiling_.size.height); ++y) {
            std::memcpy(out + y * bytes, image + (top + y) * stride + left * channels_, bytes);
        }
    }

    // Puts a tile's inner cells into the image's levels.
    void keep(const float *packed, std::size_t tile) {
        const Tiling::Cut &row = rows_[tile / columns_.size()];
        const Tiling::Cut &column = columns_[tile % columns_.size()];
        for (Level &level : levels_) {
            const std::int32_t left = column.from / level.stride;
            const auto count =
                static_cast<std::size_t>(cell_count(column.to, level.stride) - left);
            const std::int32_t bottom = cell_count(row.to, level.stride);
            for (std::int32_t y = row.from / level.stride; y < bottom; ++y) {
                const std::int32_t in_tile = (y - row.start / level.stride) * level.tile.width +
                                             left - column.start / level.stride;
                std::copy_n(packed + in_tile, count,
                            level.values.begin() + y * level.size.width + left);
            }
            packed += level.tile.pixels();
        }
    }

    // Upsamples the levels and multiplies them.
    void multiply(float *map) {
        const auto width = static_cast<std::size_t>(image_.width);
        for (std::size_t y = 0; y < static_cast<std::size_t>(image_.height); ++y) {
            float *row = map + y * width;
            std::fill_n(row, width, 1.0F);
            for (Level &level : levels_) {
                const auto across = static_cast<std::size_t>(level.size.width);
                const Sample &sample = level.rows[y];
                const float *low = level.values.data() + sample.low * across;
                const float *high = level.values.data() + sample.high * across;
                for (std::size_t x = 0; x < across; ++x) {
                    level.tall[x] = low[x] + (high[x] - low[x]) * sample.share;
                }
                for (std::size_t x = 0; x < width; ++x) {
                    row[x] *= between(level.tall.data(), level.columns[x]);
                }
            }
        }
    }

    std::unique_ptr<Request> request_;
    const Tiling &tiling_;
    Size image_;
    std::size_t channels_;
    std::vector<Tiling::Cut> rows_, columns_;
    std::vector<Level> levels_;
    Bytes images_;
    std::vector<float> maps_, scores_;
};

}  // namespace

Contract tile_contract(const Tiling &tiling, std::size_t channels) {
    Contract contract;
    contract.channels = channels;
    contract.input = tiling.size;
    contract.smallest_batch = tiling.smallest_batch;
    contract.largest_batch = tiling.largest_batch;
    contract.resizes = false;
    contract.map = {1, 0};
    for (const std::int32_t stride : tiling.strides) {
        contract.map.width += static_cast<std::int32_t>(cells(tiling.size, stride).pixels());
    }
    return contract;
}

std::unique_ptr<Request> TiledEngine::request() {
    return std::make_unique<TiledRequest>(engine_.request(), tiling_, image_, channels_);
}

}  // namespace stpm::core
