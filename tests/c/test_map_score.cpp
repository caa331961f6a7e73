// Weighted maps and scores are Python's: test_map_score GOLDEN
#include <cmath>

#include "check.hpp"
#include "map_score.hpp"

int main(int, char **argv) {
    const std::string golden = argv[1];
    std::ifstream index = open_file(golden + "/map_scores.txt");
    std::ifstream file = open_file(golden + "/map_scores.bin");
    stpm::core::Size size, image;
    stpm::core::Scoring scoring;
    std::size_t count, maps = 0;
    while (index >> size.height >> size.width >> image.height >> image.width >> scoring.percent >>
           scoring.min_area >> count) {
        std::vector<double> weights(count);
        for (double &weight : weights) index >> weight;
        scoring.rois.assign(count, "region");
        const auto map = read_values<float>(file, size.pixels());
        const auto labels = read_values<std::uint8_t>(file, size.pixels());
        const auto weighted = read_values<float>(file, size.pixels());
        const auto scores = read_values<float>(file, count);
        stpm::core::MapScorer scorer(scoring, labels, weights, size);
        for (int again = 0; again < 2; ++again) {
            const float *got = scorer.weigh(map.data());
            for (std::size_t i = 0; i < size.pixels(); ++i) CHECK(got[i] == weighted[i]);
            const std::vector<float> &found = scorer.score(image);
            for (std::size_t i = 0; i < count; ++i) {
                // A mean's sum has another order.
                const float tolerance = scoring.percent > 0 ? 1e-6F : 0;
                CHECK(std::abs(found[i] - scores[i]) <= tolerance);
            }
        }
        ++maps;
    }
    std::printf("%zu maps, all equal\n", maps);
    CHECK(maps == 120);
}
