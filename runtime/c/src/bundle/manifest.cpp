#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bundle/bundle.hpp"
#include "bundle/fields.hpp"
#include "error.hpp"
#include "bundle/json.hpp"
#include "bundle/rules.hpp"

namespace stpm::core {
namespace {

constexpr std::int64_t kFirstVersion = 1, kLastVersion = 2;
constexpr std::int64_t kMostScores = 2000, kMostStatistics = 200;
constexpr std::size_t kMostFormer = 20, kMaxDate = 40;
constexpr std::int64_t kMaxFileBytes = std::int64_t{2} << 30;
constexpr std::int64_t kMaxBatch = 4096;
constexpr double kMostWeight = 1e30;

FileEntry file(const Json &entry) {
    const Json &hash = member(entry, "sha256");
    const std::string &digits = text("sha256", hash);
    const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (digits.size() != 64 || !std::all_of(digits.begin(), digits.end(), is_digit)) {
        refuse("sha256", hash, "64 lower-case hex digits");
    }
    const auto length = integer("size_bytes", member(entry, "size_bytes"), 0, kMaxFileBytes);
    return {digits, static_cast<std::size_t>(length)};
}

// The rate and the threshold of the images that are to be looked at.
void check_warning(const Json &values, double rate, Thresholds &thresholds) {
    const Json *limit = optional(values, "warn_threshold");
    const Json *share = optional(values, "warn_rate");
    if (limit == nullptr && share == nullptr) return;
    if (limit == nullptr) refuse("warn_threshold", *share, "a number, because warn_rate is one");
    if (share == nullptr) refuse("warn_rate", *limit, "a number, because warn_threshold is one");
    thresholds.warn = number("warn_threshold", *limit);
    if (thresholds.warn > thresholds.image) {
        refuse("warn_threshold", *limit, "a number up to image_threshold");
    }
    if (number("warn_rate", *share) < rate || share->number >= 1) {
        refuse("warn_rate", *share, "a number from false_alarm_rate to below 1");
    }
}

std::vector<double> rising(const std::string &key, const Json &values, std::int64_t most) {
    if (!values.is(Kind::array) || values.items.size() > static_cast<std::size_t>(most)) {
        refuse(key, values, "a list of at most " + std::to_string(most) + " numbers");
    }
    std::vector<double> result;
    for (const Json &value : values.items) {
        result.push_back(number(key, value));
        if (result.size() > 1 && result.back() < result[result.size() - 2]) {
            refuse(key, value, "ascending numbers");
        }
    }
    return result;
}

// What the good images of a calibration were like.
void read_references(const Json &values, std::int64_t count, Thresholds &thresholds) {
    const auto scores = values.members.find("scores");
    if (scores != values.members.end()) {
        thresholds.scores = rising("scores", *scores->second, std::min(count, kMostScores));
    }
    const auto statistics = values.members.find("image_statistics");
    if (statistics == values.members.end()) return;
    for (const auto &[name, kept] : object("image_statistics", *statistics->second).members) {
        thresholds.statistics[name] = rising("image_statistics", *kept, kMostStatistics);
    }
}

// Factors of the regions of interest.
std::vector<double> weights(const Json &values) {
    std::vector<double> result;
    const auto found = values.members.find("roi_weights");
    if (found == values.members.end()) return result;
    if (!found->second->is(Kind::array)) refuse("roi_weights", *found->second, "a list of numbers");
    for (const Json &weight : found->second->items) {
        result.push_back(number("roi_weights", weight));
        if (result.back() <= 0 || result.back() >= kMostWeight) {
            refuse("roi_weights", weight, "a number above 0 and below 1e30");
        }
    }
    return result;
}

Thresholds calibration(const Json &values) {
    constexpr const char *needed[] = {"image_threshold", "pixel_threshold", "false_alarm_rate",
                                      "image_count", "false_alarm_interval"};
    constexpr const char *known[] = {"warn_rate", "warn_threshold", "scores", "calibrated",
                                     "roi_weights", "image_statistics"};
    object("calibration", values);
    for (const char *field : needed) member(values, field);
    for (const auto &[name, value] : values.members) {
        if (std::find(std::begin(needed), std::end(needed), name) == std::end(needed) &&
            std::find(std::begin(known), std::end(known), name) == std::end(known)) {
            refuse("calibration: " + name, *value, "no such field");
        }
    }
    const Json &interval = member(values, "false_alarm_interval");
    if (!interval.is(Kind::array) || interval.items.size() != 2) {
        refuse("false_alarm_interval", interval, "two numbers");
    }
    const double low = number("false_alarm_interval", interval.items[0]);
    const double high = number("false_alarm_interval", interval.items[1]);
    if (low < 0 || low > high || high > 1) {
        refuse("false_alarm_interval", interval, "0 <= low <= high <= 1");
    }
    const Json &rate = member(values, "false_alarm_rate");
    if (number("false_alarm_rate", rate) <= 0 || rate.number >= 1) {
        refuse("false_alarm_rate", rate, "a number above 0 and below 1");
    }
    const std::int64_t count =
        integer("image_count", member(values, "image_count"), 1, INT64_MAX);
    Thresholds thresholds;
    thresholds.image = number("image_threshold", member(values, "image_threshold"));
    thresholds.pixel = number("pixel_threshold", member(values, "pixel_threshold"));
    thresholds.roi_weights = weights(values);
    check_warning(values, rate.number, thresholds);
    read_references(values, count, thresholds);
    const auto date = values.members.find("calibrated");
    if (date != values.members.end()) text("calibrated", *date->second, kMaxDate);
    return thresholds;
}

// Of an engine that was built into the bundle; this library builds its own, from the graph.
void check_built(const Json &record, const Json &files) {
    const auto member_or_null = [&](const char *key) -> const Json * {
        const auto found = record.members.find(key);
        return found == record.members.end() ? nullptr : found->second.get();
    };
    const Json *file = optional(record, "file");
    if (file != nullptr && (!file->is(Kind::text) || files.members.count(file->text) == 0)) {
        refuse("file", *file, "a key of files");
    }
    const Json *verified = member_or_null("verified");
    if (verified != nullptr && !verified->is(Kind::boolean)) {
        refuse("verified", *verified, "true or false");
    }
    const Json *precisions = member_or_null("layer_precisions");
    if (precisions != nullptr) texts("layer_precisions", *precisions);
    const Json *former = member_or_null("former");
    if (former == nullptr) return;
    if (!former->is(Kind::array) || former->items.size() > kMostFormer) {
        refuse("former", *former, "a list of at most 20");
    }
    for (const Json &thresholds : former->items) calibration(thresholds);
}

Thresholds engine(const Json &record) {
    const Thresholds thresholds = calibration(member(record, "calibration"));
    for (const auto &[name, value] : object("parity", member(record, "parity")).members) {
        number(name, *value);
    }
    texts("built_with", member(record, "built_with"));
    return thresholds;
}

Contract contract(const Json &input, const Json &map_size) {
    Contract result;
    result.input = size("size", member(input, "size"));
    const Json &batch = member(input, "batch");
    const auto [smallest, largest] = pair("batch", batch, kMaxBatch);
    if (smallest > largest) refuse("batch", batch, "the smallest first");
    result.smallest_batch = static_cast<std::size_t>(smallest);
    result.largest_batch = static_cast<std::size_t>(largest);
    result.resizes = choice("resize", member(input, "resize"), {"host", "graph"}) == "host";
    result.map = size("map_size", map_size);
    const auto depth = input.members.find("bit_depth");
    if (depth != input.members.end()) {
        result.bit_depth = static_cast<int>(integer("bit_depth", *depth->second, 8, 16));
    }
    const auto channels = input.members.find("channels");
    if (channels != input.members.end()) {
        const std::int64_t count = integer("channels", *channels->second, 1, 3);
        if (count == 2) refuse("channels", *channels->second, "1 or 3");
        result.channels = static_cast<std::size_t>(count);
    }
    return result;
}

Manifest parse(const Json &values) {
    Manifest manifest;
    manifest.name = text("name", member(values, "name"));
    text("method", member(values, "method"));
    manifest.precision =
        choice("precision", member(values, "precision"), {"fp32", "fp16", "bf16", "int8"});
    integer("opset", member(values, "opset"), 1, 1000);
    manifest.contract = contract(object("input", member(values, "input")),
                                 member(values, "map_size"));
    const Json &tolerance = member(values, "tolerance");
    manifest.tolerance = number("tolerance", tolerance);
    if (manifest.tolerance <= 0 || manifest.tolerance > 1) {
        refuse("tolerance", tolerance, "a number above 0 and at most 1");
    }
    for (const auto &[name, entry] : object("files", member(values, "files")).members) {
        if (!is_plain_name(name)) refuse_name(name);
        manifest.files.emplace(name, file(object(name, *entry)));
    }
    const auto scored = values.members.find("scoring");
    if (scored != values.members.end()) manifest.scoring = parse_scoring(*scored->second);
    const Json *tiles = optional(values, "tiles");
    if (tiles != nullptr) manifest.tiles = parse_tiling(*tiles, manifest.contract.input);
    if (manifest.tiles && manifest.scoring.align) {
        throw Malformed{"got tiles and align, expected one of them"};
    }
    for (const auto &[name, record] : object("engines", member(values, "engines")).members) {
        const Thresholds thresholds = engine(object(name, *record));
        if (thresholds.roi_weights.size() != manifest.scoring.rois.size()) {
            throw Malformed{name + " has " + std::to_string(thresholds.roi_weights.size()) +
                            " roi_weights, expected " +
                            std::to_string(manifest.scoring.rois.size())};
        }
        manifest.engines.emplace(name, thresholds);
        check_built(*record, member(values, "files"));
    }
    texts("versions", member(values, "versions"));
    object("provenance", member(values, "provenance"));
    return manifest;
}

}  // namespace

Manifest parse_manifest(const Bytes &content, const std::string &path) {
    Json values;
    try {
        values = parse_json(content);
    } catch (const std::invalid_argument &error) {
        throw Error(STPM_ERROR_BUNDLE,
                    path + ": is not JSON (" + error.what() + "); export the bundle again.");
    }
    const auto version = values.members.find("schema_version");
    const bool is_there = version != values.members.end();
    if (!is_there || !version->second->is(Kind::integer) ||
        version->second->integer < kFirstVersion || version->second->integer > kLastVersion) {
        throw Error(STPM_ERROR_BUNDLE,
                    path + ": got schema version " + (is_there ? brief(*version->second) : "none") +
                        ", expected " + std::to_string(kFirstVersion) + " or " +
                        std::to_string(kLastVersion) + "; use the stpm version that wrote it, or export again.");
    }
    try {
        return parse(values);
    } catch (const Malformed &malformed) {
        throw Error(STPM_ERROR_BUNDLE,
                    path + ": malformed (" + malformed.reason + "); export the bundle again.");
    }
}

}  // namespace stpm::core
