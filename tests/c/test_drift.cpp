// Evidence, alarms and image statistics are Python's: test_drift GOLDEN
#include <cmath>

#include "check.hpp"
#include "drift.hpp"

namespace {

constexpr double kTolerance = 1e-9;

bool is_near(double a, double b) { return std::abs(a - b) <= kTolerance * std::max(1.0, std::abs(b)); }

void evidence(const std::string &golden) {
    std::ifstream file = open_file(golden + "/drift.txt");
    double level;
    std::size_t count, values, alarms = 0, runs = 0;
    while (file >> level >> count >> values) {
        std::vector<double> reference(count);
        for (double &value : reference) file >> value;
        stpm::core::DriftMonitor monitor(reference, level);
        for (std::size_t i = 0; i < values; ++i) {
            double value, expected;
            int alarm;
            file >> value >> expected >> alarm;
            CHECK(is_near(monitor.update(value), expected));
            CHECK(monitor.alarm() == (alarm == 1));
            alarms += monitor.alarm() ? 1 : 0;
        }
        ++runs;
    }
    std::printf("%zu runs, %zu values after an alarm\n", runs, alarms);
    CHECK(runs == 4 && alarms > 100);
}

void statistics(const std::string &golden) {
    std::ifstream file = open_file(golden + "/statistics.txt");
    int format, height, width;
    std::ptrdiff_t stride;
    std::uint32_t seed;
    double expected[3];
    std::size_t images = 0;
    while (file >> format >> height >> width >> stride >> seed >> expected[0] >> expected[1] >>
           expected[2]) {
        const auto bytes = image_noise(
            format, 16, static_cast<std::size_t>(height) * static_cast<std::size_t>(stride), seed);
        const auto found =
            stpm::core::image_statistics({bytes.data(), height, width, stride, format});
        for (std::size_t i = 0; i < 3; ++i) CHECK(is_near(found[i], expected[i]));
        ++images;
    }
    CHECK(images == 20);
}

// The thresholds of the tests' bundles keep four scores, and no statistics.
void calls(const std::string &golden) {
    stpm_detector *detector = open_detector(golden + "/fake/single.stpm", "");
    stpm_drift *drift = nullptr;
    CHECK(stpm_drift_open(detector, 1.5, &drift) == STPM_ERROR_ARGUMENT);
    CHECK(drift == nullptr);
    CHECK_STATUS(STPM_OK, detector, stpm_drift_open(detector, 1e-3, &drift));
    std::vector<std::uint8_t> pixels(24 * 32 * 3, 100);
    const stpm_image image = {pixels.data(), 24, 32, 0, STPM_RGB};
    stpm_drift_state state = {};
    for (int i = 0; i < 200; ++i) {
        CHECK_STATUS(STPM_OK, detector,
                     stpm_drift_update(drift, &image, 5.0F + static_cast<float>(i), &state));
    }
    CHECK(state.alarms == 1 << STPM_DRIFT_SCORE);
    CHECK(state.log10_evidence[STPM_DRIFT_SCORE] > 3);
    CHECK(state.log10_evidence[STPM_DRIFT_BRIGHTNESS] < 3);
    CHECK(stpm_drift_update(drift, &image, NAN, &state) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_drift_update(drift, nullptr, 1, &state) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_drift_update(nullptr, &image, 1, &state) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_drift_close(drift) == STPM_OK && stpm_drift_close(nullptr) == STPM_OK);
    stpm_close(detector);
}

}  // namespace

int main(int, char **argv) {
    evidence(argv[1]);
    statistics(argv[1]);
    calls(argv[1]);
}
