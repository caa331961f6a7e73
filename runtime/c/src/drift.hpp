// Has the world changed? The port of runtime/live/drift.py, where its sources stand.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/bundle.hpp"
#include "image/image.hpp"
#include "stpm.h"

namespace stpm::core {

// Tests one value an image. Its bets are on how a value ranks among all before.
class DriftMonitor {
  public:
    DriftMonitor(std::vector<double> reference, double level);

    // Takes the next value, and returns the decimal logarithm of the evidence for a change.
    double update(double value);

    bool alarm() const { return alarm_; }

  private:
    static constexpr std::size_t kBets = 10;
    using Bets = std::array<double, kBets>;

    // By what each bet multiplies its capital.
    static Bets factors(double p);
    double rank(double value);
    double uniform();

    std::vector<double> kept_;  // rising
    double limit_;
    Bets capital_ = {};
    double log_scale_ = 0;  // of the capital, natural: it would leave a double's range
    double time_ = 0;
    std::uint64_t random_ = 0x9E3779B97F4A7C15;
    bool alarm_ = false;
};

// Brightness, sharpness and saturation of an image of 8 bits, as image_statistics.py defines them.
std::array<double, 3> image_statistics(const stpm_image &image);

// Tests the scores of a camera, and the light and focus of its images.
class Drift {
  public:
    // `level`: the odds of any false alarm in all the time.
    Drift(const Thresholds &thresholds, double level);

    void update(double score, const stpm_image &image, int bit_depth, stpm_drift_state &state);

  private:
    std::vector<DriftMonitor> monitors_;
    DepthReducer reducer_;
};

}  // namespace stpm::core
