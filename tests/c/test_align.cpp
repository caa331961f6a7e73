// Parts are brought where Python brings them, by another version of OpenCV: test_align GOLDEN
#include <cfloat>
#include <cmath>

#include "check.hpp"

#ifdef STPM_ALIGN

namespace {

// Versions of OpenCV round places to 1/32 of a pixel, or not at all, and the fake engine shows edges
// of 120 grey levels as they are.
constexpr double kScoreTolerance = 0.03, kMapTolerance = 0.15, kMeanTolerance = 0.001;
constexpr std::size_t kMapPixels = std::size_t{48} * 64, kRois = 2;

struct Got {
    std::vector<float> map = std::vector<float>(kMapPixels, -1.0F);
    std::vector<stpm_roi> rois = std::vector<stpm_roi>(kRois);
    stpm_result result = {};

    Got() {
        result.map = map.data();
        result.map_capacity = map.size();
        result.rois = rois.data();
        result.roi_capacity = rois.size();
    }
};

void check(stpm_detector *detector, const Got &ours, const std::vector<float> &map,
           const std::vector<float> &scores, bool is_found) {
    std::int32_t verdict = -1;
    CHECK_STATUS(STPM_OK, detector, stpm_judge(detector, ours.result.score, &verdict));
    CHECK((verdict != STPM_VERDICT_UNALIGNED) == is_found);
    double most = 0, sum = 0;
    for (std::size_t i = 0; i < kMapPixels; ++i) {
        const double difference = std::abs(static_cast<double>(ours.map[i] - map[i]));
        most = std::max(most, difference);
        sum += difference;
    }
    std::printf("map: most %.3f, mean %.5f; scores %.4f and %.4f\n", most,
                sum / static_cast<double>(kMapPixels), static_cast<double>(ours.rois[0].score),
                static_cast<double>(scores[0]));
    CHECK(most <= kMapTolerance && sum / static_cast<double>(kMapPixels) <= kMeanTolerance);
    if (!is_found) {
        CHECK(ours.result.score == FLT_MAX && ours.result.is_anomalous == 1);
        CHECK(ours.result.region_count == 0);
        CHECK(ours.rois[0].verdict == STPM_VERDICT_UNALIGNED);
        return;
    }
    const double weights[] = {1.0, 0.8};
    for (std::size_t i = 0; i < kRois; ++i) {
        const double expected = static_cast<double>(scores[i]) / weights[i];
        CHECK(std::abs(ours.rois[i].score - expected) <= kScoreTolerance);
    }
}

}  // namespace

int main(int, char **argv) {
    const std::string golden = std::string(argv[1]) + "/aligned/";
    stpm_detector *detector = open_detector(golden + "aligned.stpm");
    std::ifstream index = open_file(golden + "aligned.txt");
    std::ifstream file = open_file(golden + "aligned.bin");
    int height, width, is_found, images = 0, found = 0;
    while (index >> height >> width >> is_found) {
        const auto bytes = read_values<std::uint8_t>(
            file, static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
        const auto map = read_values<float>(file, kMapPixels);
        const auto scores = read_values<float>(file, kRois);
        const stpm_image image = {bytes.data(), height, width, 0, STPM_RGB};
        Got at_once, queued;
        CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &at_once.result));
        check(detector, at_once, map, scores, is_found != 0);
        std::uint64_t ticket = 0;
        CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, -1, &ticket));
        CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, ticket, -1, &queued.result));
        CHECK(queued.map == at_once.map && queued.result.score == at_once.result.score);
        ++images;
        found += is_found;
    }
    CHECK(images == 12 && found == 10);
    stpm_close(detector);
    CHECK(stpm_open((golden + "aligned_drifted.stpm").c_str(), nullptr, &detector) ==
          STPM_ERROR_PARITY);
    CHECK(std::strstr(stpm_last_error(detector), "brings a golden part elsewhere") != nullptr);
    stpm_close(detector);
    std::printf("%d images, %d of them aligned\n", images, found);
}

#else

int main(int, char **argv) {
    stpm_detector *detector = nullptr;
    const std::string path = std::string(argv[1]) + "/aligned/aligned.stpm";
    CHECK(stpm_open(path.c_str(), nullptr, &detector) == STPM_ERROR_ENGINE);
    CHECK(std::strstr(stpm_last_error(detector), "which this libstpm was built without") != nullptr);
    stpm_close(detector);
    std::puts("a bundle that aligns parts is refused");
}

#endif
