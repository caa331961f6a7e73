// Scores, maps, verdicts and regions are Python's on the same engine: test_scores GOLDEN
#include <algorithm>
#include <cmath>

#include "check.hpp"

namespace {

constexpr double kScoreTolerance = 1e-5;  // relative

struct Difference {
    double score = 0, map = 0;
    int images = 0;
    int verdicts[3] = {0, 0, 0};  // how often each occurred
};

Difference replay(const std::string &real, const std::string &name, const std::string &engine) {
    stpm_detector *detector = open_detector(real + name + ".stpm", engine.c_str());
    const stpm_info info = info_of(detector);
    const std::size_t pixels =
        static_cast<std::size_t>(info.map_height) * static_cast<std::size_t>(info.map_width);
    std::ifstream index = open_file(real + name + "_" + engine + ".txt");
    std::ifstream file = open_file(real + name + "_" + engine + ".bin");
    Difference largest;
    int format, height, width, depth, verdict;
    std::ptrdiff_t stride;
    std::uint32_t seed;
    double score;
    std::size_t regions, roi_count;
    while (index >> format >> height >> width >> stride >> depth >> seed >> score >> verdict >>
           regions >> roi_count) {
        const auto expected = read_values<float>(file, pixels);
        const auto bytes = image_noise(
            format, depth, static_cast<std::size_t>(height) * static_cast<std::size_t>(stride), seed);
        const stpm_image image = {bytes.data(), height, width, stride, format};
        std::vector<float> map(pixels);
        std::vector<stpm_roi> rois(roi_count);
        stpm_result result = {};
        result.map = map.data();
        result.map_capacity = map.size();
        result.rois = rois.data();
        result.roi_capacity = rois.size();
        CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
        const auto peak = static_cast<double>(*std::max_element(expected.begin(), expected.end()));
        const auto got = static_cast<double>(result.score);
        largest.score = std::max(largest.score, std::abs(got - score) / score);
        for (std::size_t i = 0; i < pixels; ++i) {
            const double difference = std::abs(static_cast<double>(map[i] - expected[i]));
            largest.map = std::max(largest.map, difference / peak);
        }
        std::int32_t judged = -1;
        CHECK_STATUS(STPM_OK, detector, stpm_judge(detector, result.score, &judged));
        CHECK(judged == verdict);
        CHECK(result.is_anomalous == (verdict == STPM_VERDICT_ANOMALOUS));
        ++largest.verdicts[verdict];
        CHECK(result.region_count == regions);
        CHECK(result.roi_count == roi_count);
        for (const stpm_roi &roi : rois) {
            std::string roi_name;
            double roi_score, roi_threshold;
            index >> roi_name >> roi_score >> roi_threshold >> verdict;
            CHECK(roi.name == roi_name && roi.verdict == verdict);
            CHECK(std::abs(roi.score - roi_score) <= kScoreTolerance * roi_score);
            CHECK(roi.threshold == roi_threshold);
        }
        ++largest.images;
    }
    stpm_close(detector);
    return largest;
}

// A bundle for grey takes colours that are equal, and refuses others.
void check_colours(const std::string &real, const std::string &engine) {
    stpm_detector *detector = open_detector(real + "grey.stpm", engine.c_str());
    CHECK(info_of(detector).input_channels == 1);
    const auto grey = image_noise(STPM_GREY, 16, 80 * 96, 3);
    std::vector<std::uint8_t> bgr;
    for (const std::uint8_t level : grey) bgr.insert(bgr.end(), 3, level);
    const stpm_image images[] = {{grey.data(), 80, 96, 0, STPM_GREY},
                                 {bgr.data(), 80, 96, 0, STPM_BGR}};
    stpm_result results[2] = {};
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, images, 2, results));
    CHECK(results[0].score == results[1].score);
    bgr[1000] ^= 1;
    CHECK(stpm_run(detector, images + 1, 1, results) == STPM_ERROR_IMAGE);
    CHECK(std::strstr(stpm_last_error(detector), "expected grey") != nullptr);
    std::uint64_t ticket = 0;
    CHECK(stpm_submit(detector, images + 1, 0, &ticket) == STPM_ERROR_IMAGE);
    CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, images, 0, &ticket));
    CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, ticket, -1, results + 1));
    CHECK(results[0].score == results[1].score);
    stpm_close(detector);
}

}  // namespace

int main(int argc, char **argv) {
    const std::string real = std::string(argv[1]) + "/real/";
    const std::string engine = argc > 2 ? argv[2] : "openvino";
    for (const char *name : {"fp32", "fp16", "bf16", "int8", "camera", "deep", "rois", "tiles", "grey",
                             "grey_tiles"}) {
        // ONNX Runtime has no bfloat16 kernels.
        if (engine == "onnxruntime" && std::strcmp(name, "bf16") == 0) continue;
        const Difference largest = replay(real, name, engine);
        std::printf("%-6s %s: %d images, largest difference of a score %.2g, of a map %.2g\n",
                    name, engine.c_str(), largest.images, largest.score, largest.map);
        CHECK(largest.images == 20);
        for (const int count : largest.verdicts) CHECK(count > 0);
        CHECK(largest.score <= kScoreTolerance && largest.map <= kScoreTolerance);
    }
    check_colours(real, engine);
}
