#include "image/pixels_hash.hpp"

#include <vector>

#include "image/image.hpp"
#include "sha256.hpp"

namespace stpm::core {

std::string pixels_hash(const stpm_image &image, int bit_depth) {
    DepthReducer reducer;
    const stpm_image reduced = reducer.reduce(image, bit_depth);
    const Format format = format_of(reduced.format);
    const Rows rows(reduced, format);
    const std::string size = std::to_string(image.height) + "x" + std::to_string(image.width) + ":";
    Sha256 hash;
    hash.add(size.data(), size.size());
    const auto height = static_cast<std::size_t>(image.height);
    const auto width = static_cast<std::size_t>(image.width);
    std::vector<std::uint8_t> rgb(3 * width);
    for (std::size_t y = 0; y < height; ++y) {
        const std::uint8_t *row = rows[y];
        for (std::size_t x = 0; x < width; ++x) {
            for (std::size_t c = 0; c < 3; ++c) {
                rgb[3 * x + c] = row[x * format.channels + format.source[c]];
            }
        }
        hash.add(rgb.data(), rgb.size());
    }
    return hash.digits();
}

}  // namespace stpm::core
