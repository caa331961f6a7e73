// The regions are Python's: test_regions GOLDEN
#include "check.hpp"
#include "regions.hpp"

int main(int, char **argv) {
    const std::string golden = argv[1];
    std::ifstream index = open_file(golden + "/regions.txt");
    std::ifstream file = open_file(golden + "/regions.bin");
    stpm::core::Size size, image;
    float threshold;
    std::size_t count, maps = 0, regions = 0;
    while (index >> size.height >> size.width >> image.height >> image.width >> threshold >>
           count) {
        const auto map = read_values<float>(file, size.pixels());
        stpm::core::RegionFinder finder(size);
        for (int again = 0; again < 2; ++again) finder.find(map.data(), threshold, image);
        const auto &found = finder.find(map.data(), threshold, image);
        CHECK(found.size() == count);
        for (const stpm_region &region : found) {
            stpm_region expected;
            index >> expected.top >> expected.left >> expected.bottom >> expected.right >>
                expected.area >> expected.peak;
            CHECK(region.top == expected.top && region.left == expected.left);
            CHECK(region.bottom == expected.bottom && region.right == expected.right);
            CHECK(region.area == expected.area);
            CHECK(region.peak == expected.peak);
            ++regions;
        }
        ++maps;
    }
    std::printf("%zu maps, %zu regions, all equal\n", maps, regions);
    CHECK(maps == 60 && regions > 500);
}
