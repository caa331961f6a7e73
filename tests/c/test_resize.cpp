// The resize, and 16 bits brought to 8, are Python's to the integer: test_resize GOLDEN
#include "check.hpp"
#include "error.hpp"
#include "image/resize.hpp"

namespace {

// Every value at every bit depth, against the formula in integers.
void check_depths() {
    std::vector<std::uint16_t> values(1 << 16);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint16_t>(i);
    stpm::core::DepthReducer reducer;
    for (int depth = 8; depth <= 16; ++depth) {
        const std::int32_t count = 1 << depth, full = count - 1;
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(values.data());
        const stpm_image reduced = reducer.reduce({bytes, 1, count, 0, STPM_GREY16}, depth);
        CHECK(reduced.format == STPM_GREY && reduced.width == count);
        for (std::int32_t i = 0; i < count; ++i) {
            CHECK(reduced.pixels[i] == (i * 255 + full / 2) / full);
        }
    }
}

// Grey, and colours that are equal, come out as one plane: every third byte of `rgb`.
void check_one_channel(stpm::core::Resizer &resizer, const stpm_image &grey, int height, int width,
                       const std::vector<std::uint8_t> &rgb) {
    const auto rows = static_cast<std::size_t>(grey.height);
    const auto columns = static_cast<std::size_t>(grey.width);
    const std::size_t stride =
        grey.stride == 0 ? columns : static_cast<std::size_t>(grey.stride);
    std::vector<std::uint8_t> wished(rgb.size() / 3), got(rgb.size() / 3);
    for (std::size_t i = 0; i < wished.size(); ++i) wished[i] = rgb[3 * i];
    for (const int format : {STPM_GREY, STPM_RGB, STPM_BGR, STPM_RGBA, STPM_BGRA}) {
        const std::size_t channels = kChannels[format];
        std::vector<std::uint8_t> pixels(rows * columns * channels, 7);
        for (std::size_t i = 0; i < rows * columns; ++i) {
            const std::uint8_t level = grey.pixels[i / columns * stride + i % columns];
            std::fill_n(pixels.begin() + static_cast<std::ptrdiff_t>(i * channels),
                        std::min<std::size_t>(channels, 3), level);
        }
        const stpm_image image = {pixels.data(), grey.height, grey.width, 0, format};
        stpm::core::check_grey(image);
        resizer.resize(image, height, width, 1, got.data());
        CHECK(got == wished);
        if (channels == 1) continue;
        pixels[(rows * columns - 1) * channels + 2] ^= 1;
        bool is_refused = false;
        try {
            stpm::core::check_grey(image);
        } catch (const stpm::core::Error &error) {
            is_refused = error.status() == STPM_ERROR_IMAGE;
        }
        CHECK(is_refused);
    }
}

}  // namespace

constexpr std::size_t kMostFlipped = 1 << 20;  // bytes: large images take long under sanitizers

int main(int, char **argv) {
    const std::string golden = argv[1];
    std::ifstream index = open_file(golden + "/resize.txt");
    std::ifstream file = open_file(golden + "/resize.bin");
    check_depths();
    stpm::core::DepthReducer reducer;
    stpm::core::Resizer resizer;
    int format, height, width, to_height, to_width, depth, cases = 0, largest = 0;
    std::ptrdiff_t stride;
    std::uint32_t seed;
    while (index >> format >> height >> width >> stride >> to_height >> to_width >> depth >>
           seed) {
        const std::size_t rows = static_cast<std::size_t>(height);
        std::vector<std::uint8_t> pixels =
            image_noise(format, depth, rows * static_cast<std::size_t>(stride), seed);
        // Bytes after the last pixel are not the image's: a sanitizer sees a read of them.
        const std::size_t gap = static_cast<std::size_t>(stride) -
                                static_cast<std::size_t>(width) * kChannels[format] *
                                    sample_bytes(format);
        pixels.resize(pixels.size() - gap);
        pixels.shrink_to_fit();
        const stpm_image image = {pixels.data(), height, width, stride, format};
        const std::size_t size =
            static_cast<std::size_t>(to_height) * static_cast<std::size_t>(to_width) * 3;
        const auto expected = read_values<std::uint8_t>(file, size);
        std::vector<std::uint8_t> got(size);
        stpm::core::check_image(image);
        resizer.resize(reducer.reduce(image, depth), to_height, to_width, 3, got.data());
        for (std::size_t i = 0; i < size; ++i) {
            largest = std::max(largest, std::abs(int{got[i]} - int{expected[i]}));
        }
        if (pixels.size() < kMostFlipped) {
            // The same picture bottom-up in memory.
            std::vector<std::uint8_t> turned(rows * static_cast<std::size_t>(stride));
            for (std::size_t y = 0; y < rows; ++y) {
                const std::size_t row = static_cast<std::size_t>(stride);
                std::memcpy(turned.data() + (rows - 1 - y) * row, pixels.data() + y * row, row - gap);
            }
            std::vector<std::uint8_t> flipped(size);
            const stpm_image bottom_up = {turned.data() + (height - 1) * stride, height, width,
                                          -stride, image.format};
            resizer.resize(reducer.reduce(bottom_up, depth), to_height, to_width, 3,
                           flipped.data());
            CHECK(flipped == got);
        }
        if (kChannels[format] == 1) {
            const stpm_image plane = reducer.reduce(image, depth);
            check_one_channel(resizer, plane, to_height, to_width, expected);
        }
        ++cases;
    }
    std::printf("%d images, largest difference %d\n", cases, largest);
    CHECK(cases == 400);
    CHECK(largest == 0);
}
