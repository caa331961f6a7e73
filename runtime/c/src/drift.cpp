#include "drift.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "error.hpp"

namespace stpm::core {
namespace {

constexpr double kSlopes[] = {-2, -1, 0, 1, 2};
constexpr double kSpreads[] = {-0.5, 0.5, 1};
constexpr double kJump = 0.01;
constexpr std::size_t kMostKept = std::size_t{1} << 17;
constexpr double kMostCapital = 1e100;
constexpr std::int32_t kStatisticRows = 256;
constexpr int kClipped = 254;
constexpr const char *kStatistics[] = {"brightness", "sharpness", "saturation"};

std::vector<double> reference(const Thresholds &thresholds, const char *name) {
    const auto found = thresholds.statistics.find(name);
    return found == thresholds.statistics.end() ? std::vector<double>{} : found->second;
}

double seventh_power(double base) {
    const double square = base * base;
    return square * square * square * base;
}

}  // namespace

DriftMonitor::Bets DriftMonitor::factors(double p) {
    const double middle = p - 0.5;
    const double spread = 12 * middle * middle - 1;
    Bets found;
    auto next = found.begin();
    for (const double slope : kSlopes) *next++ = 1 + slope * middle;
    for (const double weight : kSpreads) *next++ = 1 + weight * spread;
    for (const double end : {p, 1 - p}) *next++ = 8 * seventh_power(end);
    return found;
}

DriftMonitor::DriftMonitor(std::vector<double> reference, double level)
    : kept_(std::move(reference)), limit_(-std::log10(level)) {
    std::sort(kept_.begin(), kept_.end());
}

double DriftMonitor::update(double value) {
    const double p = rank(value);
    const double before = 1 / (1 + std::log1p(time_));
    time_ += 1;
    const double reserve = 1 / (1 + std::log1p(time_));
    const double entering = (before - reserve) * std::exp(-log_scale_) / kBets;
    double sum = 0;
    for (double &part : capital_) sum += part += entering;
    const double spread = kJump * sum / kBets;
    const Bets factor = factors(p);
    double total = 0;
    for (std::size_t i = 0; i < kBets; ++i) {
        capital_[i] = ((1 - kJump) * capital_[i] + spread) * factor[i];
        total += capital_[i];
    }
    if (total > kMostCapital) {
        for (double &part : capital_) part /= total;
        log_scale_ += std::log(total);
        total = 1;
    }
    const double evidence = log_scale_ + std::log(total + reserve * std::exp(-log_scale_));
    const double log10_evidence = evidence / std::log(10.0);
    alarm_ = alarm_ || log10_evidence >= limit_;
    return log10_evidence;
}

// Ranks a value among those before, equal ones at random, and keeps it.
double DriftMonitor::rank(double value) {
    const auto [low, high] = std::equal_range(kept_.begin(), kept_.end(), value);
    const auto equal = static_cast<double>(high - low + 1);
    const double below = static_cast<double>(low - kept_.begin());
    const double p = (below + uniform() * equal) / static_cast<double>(kept_.size() + 1);
    kept_.insert(high, value);
    if (kept_.size() > kMostKept) {
        std::size_t count = 0;  // every second one stays
        for (std::size_t i = 1; i < kept_.size(); i += 2) kept_[count++] = kept_[i];
        kept_.resize(count);
    }
    return p;
}

// The next number in [0, 1) of SplitMix64.
double DriftMonitor::uniform() {
    random_ += 0x9E3779B97F4A7C15;
    std::uint64_t z = random_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return static_cast<double>((z ^ (z >> 31)) >> 11) / 9007199254740992.0;  // 2^53
}

std::array<double, 3> image_statistics(const stpm_image &image) {
    const Format format = format_of(image.format);
    const Rows rows(image, format);
    const std::int32_t step =
        std::max(1, (image.height + kStatisticRows - 1) / kStatisticRows);
    const auto width = static_cast<std::size_t>(image.width);
    std::int64_t sum = 0, differences = 0, clipped = 0, count = 0;
    for (std::int32_t y = 0; y < image.height; y += step) {
        const std::uint8_t *row = rows[static_cast<std::size_t>(y)];
        for (std::size_t x = 0; x < width; ++x) {
            const std::uint8_t *pixel = row + x * format.channels;
            const int green = pixel[format.source[1]];
            sum += green;
            if (x > 0) {
                differences += std::abs(green - (pixel - format.channels)[format.source[1]]);
            }
            const int highest = std::max({static_cast<int>(pixel[format.source[0]]), green,
                                          static_cast<int>(pixel[format.source[2]])});
            clipped += highest >= kClipped ? 1 : 0;
        }
        ++count;
    }
    const auto pixels = static_cast<double>(count) * static_cast<double>(width);
    const double brightness = static_cast<double>(sum) / pixels;
    const double pairs = static_cast<double>(count) * static_cast<double>(width - 1);
    const double difference = width > 1 ? static_cast<double>(differences) / pairs : 0;
    return {brightness, difference / std::max(brightness, 1.0),
            static_cast<double>(clipped) / pixels};
}

Drift::Drift(const Thresholds &thresholds, double level) {
    if (!(level > 0 && level < 1)) {
        throw Error(STPM_ERROR_ARGUMENT, "got a level of " + std::to_string(level) +
                                             ", expected a number above 0 and below 1; correct "
                                             "it.");
    }
    const double each = level / (1 + std::size(kStatistics));
    monitors_.emplace_back(thresholds.scores, each);
    for (const char *name : kStatistics) monitors_.emplace_back(reference(thresholds, name), each);
}

void Drift::update(double score, const stpm_image &image, int bit_depth,
                   stpm_drift_state &state) {
    if (!std::isfinite(score)) {
        throw Error(STPM_ERROR_ARGUMENT, "got a score that is not finite; pass the score of "
                                         "the result.");
    }
    const auto statistics = image_statistics(reducer_.reduce(image, bit_depth));
    const double values[] = {score, statistics[0], statistics[1], statistics[2]};
    state.alarms = 0;
    for (std::size_t i = 0; i < monitors_.size(); ++i) {
        state.log10_evidence[i] = monitors_[i].update(values[i]);
        if (monitors_[i].alarm()) state.alarms |= 1 << i;
    }
}

}  // namespace stpm::core
