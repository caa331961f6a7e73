// The resize is Python's to the integer: test_resize GOLDEN
#include "check.hpp"
#include "resize.hpp"

constexpr std::size_t kMostFlipped = 1 << 20;  // bytes: large images take long under sanitizers

int main(int, char **argv) {
    const std::string golden = argv[1];
    std::ifstream index = open_file(golden + "/resize.txt");
    std::ifstream file = open_file(golden + "/resize.bin");
    stpm::core::Resizer resizer;
    int format, height, width, to_height, to_width, cases = 0, largest = 0;
    std::ptrdiff_t stride;
    std::uint32_t seed;
    while (index >> format >> height >> width >> stride >> to_height >> to_width >> seed) {
        const std::size_t rows = static_cast<std::size_t>(height);
        std::vector<std::uint8_t> pixels = noise(rows * static_cast<std::size_t>(stride), seed);
        // Bytes after the last pixel are not the image's: a sanitizer sees a read of them.
        const std::size_t gap = static_cast<std::size_t>(stride) -
                                static_cast<std::size_t>(width) * kChannels[format];
        pixels.resize(pixels.size() - gap);
        pixels.shrink_to_fit();
        const stpm_image image = {pixels.data(), height, width, stride, format};
        const std::size_t size =
            static_cast<std::size_t>(to_height) * static_cast<std::size_t>(to_width) * 3;
        const auto expected = read_values<std::uint8_t>(file, size);
        std::vector<std::uint8_t> got(size);
        stpm::core::check_image(image);
        resizer.resize(image, to_height, to_width, got.data());
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
            resizer.resize(bottom_up, to_height, to_width, flipped.data());
            CHECK(flipped == got);
        }
        ++cases;
    }
    std::printf("%d images, largest difference %d\n", cases, largest);
    CHECK(cases == 200);
    CHECK(largest == 0);
}
