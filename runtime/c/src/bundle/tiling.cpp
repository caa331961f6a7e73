#include <algorithm>

#include "bundle/bundle.hpp"

namespace stpm::core {

std::int32_t Tiling::step(std::int32_t tile) const {
    const std::int32_t inner = tile - 2 * margin;
    return inner < 0 ? 0 : inner - inner % stride();
}

std::vector<Tiling::Cut> Tiling::cuts(std::int32_t length, std::int32_t tile) const {
    const std::int32_t spare = (length - tile) / stride();
    const std::int32_t count =
        spare == 0 ? 1 : 1 + (length - tile + step(tile) - 1) / step(tile);
    std::vector<Cut> result;
    for (std::int32_t i = 0; i < count; ++i) {
        const auto place = std::int64_t{spare} * i / std::max(1, count - 1);
        const auto start = static_cast<std::int32_t>(place) * stride();
        if (i > 0) result.back().to = start + margin;
        result.push_back({start, i == 0 ? 0 : start + margin, length});
    }
    return result;
}

Size Tiling::golden_size(Size image) const {
    return {std::min(image.height, size.height + step(size.height)),
            std::min(image.width, size.width + step(size.width))};
}

Contract Manifest::golden_contract() const {
    Contract golden = contract;
    if (tiles) golden.input = golden.map = tiles->golden_size(contract.input);
    return golden;
}

}  // namespace stpm::core
