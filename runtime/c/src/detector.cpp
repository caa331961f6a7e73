#include "detector.hpp"

#include <cmath>
#include <cstdio>
#include <limits>
#include <new>

#include "error.hpp"
#include "tiled.hpp"

namespace stpm::core {
namespace {

// A message of an engine in one line.
std::string one_line(const std::string &message) {
    std::string line;
    for (const char c : message) {
        const bool is_space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
        if (!is_space) {
            line += c;
        } else if (!line.empty() && line.back() != ' ') {
            line += ' ';
        }
    }
    return line;
}

std::string number_text(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2g", value);
    return text;
}

// NumPy compares a map of FP32 with the threshold in FP32; a cast alone is undefined beyond it.
float to_float(double value) {
    constexpr double most = std::numeric_limits<float>::max();
    return static_cast<float>(std::clamp(value, -most, most));
}

bool are_finite(const float *values, std::size_t count) {
    // Compared as bits, without a branch a value, so that the loop is vectorised.
    constexpr std::uint32_t exponent = 0x7F800000;
    std::uint32_t others = 0;
    for (std::size_t i = 0; i < count; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        others |= (bits & exponent) == exponent ? 1 : 0;
    }
    return others == 0;
}

float largest(const float *values, std::size_t count) {
    float most = std::numeric_limits<float>::min();  // keeps a map of zeros from dividing by zero
    for (std::size_t i = 0; i < count; ++i) most = std::max(most, std::abs(values[i]));
    return most;
}

float largest_difference(const float *a, const float *b, std::size_t count) {
    float most = 0;
    for (std::size_t i = 0; i < count; ++i) most = std::max(most, std::abs(a[i] - b[i]));
    return most;
}

// The top left corner of a map's labels.
Bytes corner(const Bytes &labels, Size whole, Size size) {
    Bytes result;
    for (std::int32_t y = 0; y < size.height; ++y) {
        const auto row = labels.begin() + static_cast<std::ptrdiff_t>(y) * whole.width;
        result.insert(result.end(), row, row + size.width);
    }
    return result;
}

}  // namespace

Detector::Detector(const std::string &path, const std::string &engine, int threads)
    : bundle_(path),
      engine_name_(choose(engine)),
      thresholds_(manifest().engines.at(engine_name_)),
      pixel_threshold_(to_float(thresholds_.pixel)),
      scoring_map_(manifest().scoring.is_graphs() ? ScoringMap{} : bundle_.scoring_map()),
      engine_(open_engine(threads)),
      tiled_(whole_engine(contract().input)),
      aligner_(manifest().scoring.align ? open_aligner(bundle_) : nullptr),
      requests_([this] { return tiled_ ? tiled_->request() : engine_->request(); }),
      fitters_([] { return std::make_unique<Fitter>(); }),
      finders_([this] { return std::make_unique<RegionFinder>(contract().map); }),
      scorers_([this] {
          return std::make_unique<MapScorer>(manifest().scoring, scoring_map_.labels,
                                             thresholds_.roi_weights, contract().map);
      }),
      seen_([] { return std::make_unique<Seen>(); }) {
    replay(bundle_.golden());
}

std::string Detector::choose(const std::string &engine) const {
    std::string built, verified;
    for (const EngineEntry &entry : engines()) {
        built += (built.empty() ? "" : ", ") + std::string(entry.name);
    }
    for (const auto &[name, record] : manifest().engines) {
        verified += (verified.empty() ? "" : ", ") + name;
    }
    for (const EngineEntry &entry : engines()) {
        const bool has_record = manifest().engines.count(entry.name) != 0;
        if (engine.empty() ? has_record : engine == entry.name) {
            if (has_record) return entry.name;
            throw Error(STPM_ERROR_ENGINE, bundle_.path() + ": has no threshold for the engine " +
                                               engine + ", only for " + verified +
                                               "; export again with it installed.");
        }
    }
    if (!engine.empty()) {
        throw Error(STPM_ERROR_ENGINE, "got engine '" + engine + "', expected one of this build: " +
                                           built + "; choose one, or build libstpm with it.");
    }
    throw Error(STPM_ERROR_ENGINE, bundle_.path() + ": made for " +
                                       (verified.empty() ? "no engine" : verified) +
                                       ", but this libstpm was built with " + built +
                                       "; export again, or build libstpm with it.");
}

std::unique_ptr<Engine> Detector::open_engine(int threads) const {
    const Bytes model = bundle_.read("model.onnx");
    for (const EngineEntry &entry : engines()) {
        if (engine_name_ != entry.name) continue;
        try {
            const auto &tiles = manifest().tiles;
            return entry.open(model, tiles ? tile_contract(*tiles, contract().channels) : contract(), threads);
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception &error) {
            throw Error(STPM_ERROR_ENGINE, bundle_.path() + ": " + engine_name_ +
                                               " cannot run this graph (" + one_line(error.what()) +
                                               "); choose another engine or precision.");
        }
    }
    throw Error(STPM_ERROR_INTERNAL, "the engine " + engine_name_ + " is gone.");
}

// An engine for images that are cut into tiles; none where they are not.
std::unique_ptr<Engine> Detector::whole_engine(Size image) {
    const auto &tiles = manifest().tiles;
    return tiles ? std::make_unique<TiledEngine>(*engine_, *tiles, image, contract().channels)
                 : nullptr;
}

void Detector::check(const stpm_image &image) const {
    check_image(image);
    const Size size = contract().input;
    if (!contract().resizes && (image.height != size.height || image.width != size.width)) {
        throw Error(STPM_ERROR_IMAGE,
                    "got an image of " + std::to_string(image.height) + "x" +
                        std::to_string(image.width) + " pixels, expected " +
                        std::to_string(size.height) + "x" + std::to_string(size.width) +
                        ", for which the bundle was exported; export again with that "
                        "--camera-size, or without it.");
    }
}

void Detector::check(const stpm_result &result) const {
    const std::size_t needed = contract().map.pixels();
    if (result.map != nullptr && result.map_capacity < needed) {
        throw Error(STPM_ERROR_BUFFER, "got room for " + std::to_string(result.map_capacity) +
                                           " values of the map, expected " +
                                           std::to_string(needed) +
                                           "; see map_height and map_width of stpm_get_info.");
    }
    if (result.regions == nullptr && result.region_capacity != 0) {
        throw Error(STPM_ERROR_ARGUMENT, "got no regions but a region_capacity of " +
                                             std::to_string(result.region_capacity) +
                                             "; start with stpm_result result = {0}.");
    }
    if (result.rois == nullptr && result.roi_capacity != 0) {
        throw Error(STPM_ERROR_ARGUMENT, "got no rois but a roi_capacity of " +
                                             std::to_string(result.roi_capacity) +
                                             "; start with stpm_result result = {0}.");
    }
}

void Detector::fit(const stpm_image &image, std::uint8_t *input, Placement &placement) {
    const auto fitter = fitters_.borrow();
    const stpm_image reduced = fitter->depth.reduce(image, contract().bit_depth);
    if (contract().channels == 1) check_grey(reduced);
    fitter->resizer.resize(reduced, contract().input.height, contract().input.width,
                           contract().channels, input);
    if (aligner_) {
        const auto channels = static_cast<int>(contract().channels);
        placement = aligner_->align(input, contract().input, channels);
    }
}

Outputs Detector::run(Request &request, std::size_t batch, std::size_t count, Size map) const {
    Outputs outputs{};
    try {
        outputs = request.run(batch);
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &error) {
        throw Error(STPM_ERROR_ENGINE, "the engine cannot score a batch of " +
                                           std::to_string(batch) + " (" + one_line(error.what()) +
                                           "); export again.");
    }
    if (!are_finite(outputs.maps, count * map.pixels()) ||
        !are_finite(outputs.scores, count)) {
        throw Error(STPM_ERROR_ENGINE,
                    "the engine returned a score or map that is not finite, expected finite "
                    "numbers; export again in FP32.");
    }
    return outputs;
}

void Detector::report(float score, const float *map, Size image_size, const Placement &placement,
                      stpm_result &result) {
    result.roi_count = manifest().scoring.rois.size();
    if (manifest().scoring.is_graphs()) return report_scored(score, map, image_size, result);
    if (!aligner_) return report_regions(map, scoring_map_.labels, image_size, result);
    if (!placement.is_found) return report_unaligned(image_size, result);
    const auto seen = seen_.borrow();
    to_camera(placement, map, scoring_map_.labels, contract().map, seen->map, seen->labels);
    for (std::size_t i = 1; i <= manifest().scoring.roi_count(); ++i) {
        const auto end = seen->labels.end();
        if (std::find(seen->labels.begin(), end, static_cast<std::uint8_t>(i)) == end) {
            return report_unaligned(image_size, result);
        }
    }
    report_regions(seen->map.data(), seen->labels, image_size, result);
}

// What was not found is above every threshold, and shows nothing.
void Detector::report_unaligned(Size image_size, stpm_result &result) {
    for (std::size_t i = 0; i < std::min(result.roi_count, result.roi_capacity); ++i) {
        result.rois[i] = roi(i, static_cast<double>(kUnalignedScore));
    }
    const std::vector<float> nothing(contract().map.pixels(), 0.0F);
    report_scored(kUnalignedScore, nothing.data(), image_size, result);
    result.region_count = 0;
}

void Detector::report_regions(const float *map, const Bytes &labels, Size image_size,
                              stpm_result &result) {
    const auto scorer = scorers_.borrow();
    scorer->look(labels);
    const float *weighted = scorer->weigh(map);
    const std::vector<float> &scores = scorer->score(image_size);
    for (std::size_t i = 0; i < std::min(result.roi_count, result.roi_capacity); ++i) {
        result.rois[i] = roi(i, static_cast<double>(scores[i]));
    }
    report_scored(*std::max_element(scores.begin(), scores.end()), weighted, image_size, result);
}

void Detector::report_scored(float score, const float *map, Size image_size,
                             stpm_result &result) {
    const Size map_size = contract().map;
    if (result.map != nullptr) std::memcpy(result.map, map, map_size.pixels() * sizeof(float));
    const std::int64_t needed = map_pixels(manifest().scoring.min_area, map_size, image_size);
    const auto finder = finders_.borrow();
    const auto &regions = finder->find(map, pixel_threshold_, image_size, needed);
    result.region_count = regions.size();
    std::copy_n(regions.begin(), std::min(regions.size(), result.region_capacity),
                result.regions);
    result.score = score;
    result.threshold = thresholds_.image;
    result.is_anomalous = judge(static_cast<double>(score)) >= STPM_VERDICT_ANOMALOUS ? 1 : 0;
}

stpm_verdict Detector::judge(double score) const {
    if (score >= static_cast<double>(kUnalignedScore)) return STPM_VERDICT_UNALIGNED;
    if (score > thresholds_.image) return STPM_VERDICT_ANOMALOUS;
    return score > thresholds_.warn ? STPM_VERDICT_WARN : STPM_VERDICT_OK;
}

// What a region of interest has by its own pixels and its own threshold.
stpm_roi Detector::roi(std::size_t index, double score) const {
    const double weight = thresholds_.roi_weights[index];
    return {manifest().scoring.rois[index].c_str(), score / weight, thresholds_.image / weight,
            judge(score)};
}

void Detector::replay(const Golden &golden) {
    const Contract contract = manifest().golden_contract();
    const std::size_t bytes = contract.input_bytes();
    const std::size_t pixels = contract.map.pixels();
    float map_difference = 0, score_difference = 0;
    const auto fill = [&](std::size_t i, std::uint8_t *input) {
        std::memcpy(input, golden.images.data() + i * bytes, bytes);
    };
    const auto take = [&](std::size_t i, float score, const float *map) {
        const float *expected = golden.maps.data() + i * pixels;
        map_difference = std::max(map_difference, largest_difference(map, expected, pixels) /
                                                      largest(expected, pixels));
        score_difference = std::max(score_difference,
                                    largest_difference(&score, &golden.scores[i], 1) /
                                        largest(&golden.scores[i], 1));
    };
    const std::unique_ptr<Engine> corners = whole_engine(contract.input);
    const std::unique_ptr<Request> request = (corners ? *corners : *engine_).request();
    score_with(*request, contract, golden.count, fill, take);
    // std::max drops NaN, so what is not finite is looked for by itself.
    const bool finite = are_finite(golden.maps.data(), golden.maps.size()) &&
                        are_finite(golden.scores.data(), golden.scores.size());
    const double tolerance = manifest().tolerance;
    if (!finite || static_cast<double>(map_difference) > tolerance ||
        static_cast<double>(score_difference) > tolerance) {
        throw Error(STPM_ERROR_PARITY,
                    bundle_.path() + ": " + engine_name_ + " differs from the golden maps by " +
                        number_text(map_difference) + " of their maximum and from the scores by " +
                        number_text(score_difference) + ", expected at most " +
                        number_text(tolerance) +
                        "; export again on this machine or choose another engine.");
    }
    if (!manifest().scoring.is_graphs()) replay_scoring(golden);
}

// Holds the regions' scores of the golden maps against those that Python kept of them.
void Detector::replay_scoring(const Golden &golden) {
    const Contract contract = manifest().golden_contract();
    const std::size_t pixels = contract.map.pixels();
    const std::size_t count = manifest().scoring.roi_count();
    const std::vector<float> &expected = scoring_map_.golden_scores;
    const Bytes labels = corner(scoring_map_.labels, this->contract().map, contract.map);
    MapScorer scorer(manifest().scoring, labels, {}, contract.map);
    bool holds = expected.size() == golden.count * count;
    for (std::size_t i = 0; holds && i < golden.count; ++i) {
        const float *map = golden.maps.data() + i * pixels;
        scorer.weigh(map);
        const std::vector<float> &scores = scorer.score(contract.input);
        const float difference = largest_difference(scores.data(), expected.data() + i * count, count);
        // A NaN holds nothing, either.
        holds = difference <= to_float(manifest().tolerance) * largest(map, pixels);
    }
    if (!holds) {
        throw Error(STPM_ERROR_PARITY, bundle_.path() + ": " + engine_name_ +
                                           " scores the regions of interest of the golden images "
                                           "differently than at calibration; calibrate again.");
    }
}

}  // namespace stpm::core
