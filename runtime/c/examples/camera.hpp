// A camera's verdicts: printed, recorded, and tested for drift. What watch.cpp and cameras.cpp share.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <stpm.hpp>

#include "json.hpp"
#include "record.hpp"

// The bundle as a record names it: the hash of the manifest, which has the hashes of its files.
inline std::string bundle_hash(const std::filesystem::path &bundle) {
    std::ifstream file(bundle / "manifest.json", std::ios::binary);
    return stpm::hash(std::string(std::istreambuf_iterator<char>(file), {}));
}

// Used by one thread at a time; cameras share detector and record, which live longer.
class Camera {
  public:
    Camera(const stpm::Detector &detector, Record &record, std::string name, std::string bundle)
        : detector_(detector), record_(record), name_(std::move(name)),
          bundle_(std::move(bundle)), drift_(detector) {}

    // Tells of a verdict once it is on the disk. `image` is its name in the record.
    void tell(const std::string &image, Record::Clock::time_point taken, const stpm_image &pixels,
              const stpm::Result &result) {
        const auto scored = Record::Clock::now();
        const bool has_score = result.verdict != STPM_VERDICT_UNALIGNED;
        Fields rois;
        for (const stpm_roi &roi : result.rois) rois.text(roi.name, kVerdicts[roi.verdict]);
        Fields entry = begin(image);
        entry.text("verdict", kVerdicts[result.verdict]);
        if (has_score) entry.number("score", static_cast<double>(result.score));
        entry.number("threshold", result.threshold)
            .text("sha256", detector_.hash(pixels))
            .count("regions", result.regions.size())
            .object("latency_ms", Fields().number("score", milliseconds(scored - taken)));
        if (!result.rois.empty()) entry.object("rois", rois);
        stpm_drift_state state = {};
        if (has_score) {
            state = drift_.update(pixels, result.score);
            entry.object("drift", drift_of(state));
        }
        record_.append(taken, entry);
        char score[32] = "-";
        if (has_score) std::snprintf(score, sizeof score, "%.6g", static_cast<double>(result.score));
        std::printf("%-9s  %s  %.6g  %s %s\n", kPrinted[result.verdict], score, result.threshold,
                    name_.c_str(), image.c_str());
        for (const stpm_region &region : result.regions) {
            std::printf("           top %d left %d bottom %d right %d\n", region.top, region.left,
                        region.bottom, region.right);
        }
        std::fflush(stdout);
        warn(state.alarms);
    }

    // An image without a score is a verdict, too.
    void tell_error(const std::string &image, Record::Clock::time_point taken,
                    const std::string &message) {
        record_.append(taken, begin(image).text("verdict", "error").text("error", message).object(
                                  "latency_ms", Fields()));
        std::fprintf(stderr, "%s %s: %s\n", name_.c_str(), image.c_str(), message.c_str());
    }

  private:
    static constexpr const char *kVerdicts[] = {"ok", "warn", "anomalous", "unaligned"};
    static constexpr const char *kPrinted[] = {"ok", "WARN", "ANOMALOUS", "UNALIGNED"};
    static constexpr const char *kTests[] = {"score", "brightness", "sharpness", "saturation"};

    Fields begin(const std::string &image) const {
        return Fields()
            .text("camera", name_)
            .text("image", image)
            .text("bundle", bundle_)
            .text("engine", detector_.info().engine);
    }

    static double milliseconds(Record::Clock::duration time) {
        const double exact = std::chrono::duration<double, std::milli>(time).count();
        return std::round(1e3 * exact) / 1e3;
    }

    static Fields drift_of(const stpm_drift_state &state) {
        Fields fields;
        std::vector<std::string> alarms;
        for (int test = 0; test < STPM_DRIFT_TESTS; ++test) {
            fields.number(kTests[test], std::round(1e3 * state.log10_evidence[test]) / 1e3);
            if (state.alarms & 1 << test) alarms.emplace_back(kTests[test]);
        }
        return fields.texts("alarms", alarms);
    }

    // Says it once when a test has found a change.
    void warn(int alarms) {
        for (int test = 0; test < STPM_DRIFT_TESTS; ++test) {
            if (alarms & ~warned_ & 1 << test) {
                std::fprintf(stderr,
                             "%s: the %s has changed since the calibration; look at the light, the "
                             "lens and the parts, and calibrate again\n",
                             name_.c_str(), kTests[test]);
            }
        }
        warned_ |= alarms;
    }

    const stpm::Detector &detector_;
    Record &record_;
    std::string name_, bundle_;
    stpm::Drift drift_;
    int warned_ = 0;
};
