#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "bundle/bundle.hpp"
#include "error.hpp"
#include "bundle/json.hpp"

namespace stpm::core {
namespace {

using Kind = Json::Kind;

constexpr std::int64_t kFirstVersion = 1, kLastVersion = 2;
constexpr std::int64_t kMostScores = 2000, kMostStatistics = 200;
constexpr std::size_t kMostFormer = 20, kMaxDate = 40;
constexpr std::int64_t kMaxFileBytes = std::int64_t{2} << 30;
constexpr std::int64_t kMaxSide = 16384;
constexpr std::int64_t kMaxBatch = 4096;
constexpr std::size_t kMaxText = 1000;  // characters
constexpr std::size_t kMaxFileName = 128, kMaxRoiName = 64;
constexpr std::size_t kMostRois = 16;
constexpr std::int64_t kMaxArea = std::int64_t{1} << 28;
constexpr double kMostWeight = 1e30;

// What a field is, where it is not what it must be; the caller adds the path.
struct Malformed {
    std::string reason;
};

[[noreturn]] void refuse(const std::string &key, const Json &value, const std::string &expected) {
    throw Malformed{key + " is " + brief(value) + ", expected " + expected};
}

[[noreturn]] void refuse_name(const std::string &name) {
    Json value;
    value.kind = Kind::text;
    value.text = name;
    throw Malformed{brief(value) + " is not a plain file name"};
}

const Json &member(const Json &values, const char *key) {
    const auto found = values.members.find(key);
    if (found == values.members.end()) throw Malformed{std::string("'") + key + "' is missing"};
    return *found->second;
}

const Json &object(const std::string &key, const Json &value) {
    if (!value.is(Kind::object)) refuse(key, value, "an object");
    return value;
}

std::int64_t integer(const std::string &key, const Json &value, std::int64_t low,
                     std::int64_t high) {
    if (!value.is(Kind::integer) || value.integer < low || value.integer > high) {
        refuse(key, value,
               "an integer in " + std::to_string(low) + ".." + std::to_string(high));
    }
    return value.integer;
}

double number(const std::string &key, const Json &value) {
    if (!value.is(Kind::integer) && !value.is(Kind::number)) refuse(key, value, "a finite number");
    return value.number;
}

const std::string &text(const std::string &key, const Json &value,
                        std::size_t most = kMaxText) {
    const auto starts = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
    const auto count = std::count_if(value.text.begin(), value.text.end(), starts);
    if (!value.is(Kind::text) || static_cast<std::size_t>(count) > most) {
        refuse(key, value, "a text of at most " + std::to_string(most) + " characters");
    }
    return value.text;
}

void texts(const std::string &key, const Json &value) {
    for (const auto &[name, inner] : object(key, value).members) text(name, *inner);
}

std::string choice(const std::string &key, const Json &value,
                   std::initializer_list<const char *> known) {
    std::string names;
    for (const char *name : known) {
        if (value.is(Kind::text) && value.text == name) return name;
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    refuse(key, value, "one of " + names);
}

std::pair<std::int64_t, std::int64_t> pair(const std::string &key, const Json &value,
                                           std::int64_t high) {
    if (!value.is(Kind::array) || value.items.size() != 2) refuse(key, value, "two integers");
    return {integer(key, value.items[0], 1, high), integer(key, value.items[1], 1, high)};
}

Size size(const std::string &key, const Json &value) {
    const auto [height, width] = pair(key, value, kMaxSide);
    return {static_cast<std::int32_t>(height), static_cast<std::int32_t>(width)};
}

// ASCII alone, whatever the locale.
bool is_letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Plain names only, so that nothing outside the folder can be named.
bool is_plain_name(const std::string &name, std::size_t most = kMaxFileName) {
    const auto fits = [](char c) {
        return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-';
    };
    return !name.empty() && name.size() <= most && is_letter_or_digit(name[0]) &&
           std::all_of(name.begin(), name.end(), fits);
}

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

// A member that bundles of schema version 1 lack; a null is as good as none.
const Json *optional(const Json &values, const char *key) {
    const auto found = values.members.find(key);
    const bool is_there = found != values.members.end() && !found->second->is(Kind::null);
    return is_there ? found->second.get() : nullptr;
}

// The rate and the threshold of the images that are to be looked at.
void check_warning(const Json &values, double rate, Thresholds &thresholds) {
    const Json *limit = optional(values, "warn_threshold");
    const Json *share = optional(values, "warn_rate");
    if (limit == nullptr && share == nullptr) return;
    if (limit == nullptr) refuse("warn_threshold", *share, "a number beside warn_rate");
    if (share == nullptr) refuse("warn_rate", *limit, "a number beside warn_threshold");
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
            refuse(key, value, "rising numbers");
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
    return result;
}

// P of "topP%"; 0 for another kind, as of one that cannot be read.
double percent(const std::string &kind) {
    constexpr std::size_t prefix = 3;  // "top"
    if (kind.size() < prefix + 2 || kind.compare(0, prefix, "top") != 0 || kind.back() != '%') {
        return 0;
    }
    const std::string digits = kind.substr(prefix, kind.size() - prefix - 1);
    const std::size_t point = digits.find('.');
    const auto are_digits = [](const std::string &text, std::size_t most) {
        return !text.empty() && text.size() <= most &&
               std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
    };
    const bool is_number =
        are_digits(digits.substr(0, point), 3) &&
        (point == std::string::npos || are_digits(digits.substr(point + 1), 9));
    if (!is_number) return 0;
    // A JSON number may have no zeros before its first digit, and any locale has none of its own.
    const std::size_t start = std::min(digits.find_first_not_of('0'), digits.size());
    const std::string plain = start < digits.size() && digits[start] != '.'
                                  ? digits.substr(start)
                                  : "0" + digits.substr(start);
    return parse_json(Bytes(plain.begin(), plain.end())).number;
}

Scoring scoring(const Json &values) {
    Scoring result;
    object("scoring", values);
    const Json &kind = member(values, "kind");
    text("kind", kind);
    const bool is_maximum = kind.text == "max", is_graphs = kind.text == "graph";
    result.percent = percent(kind.text);
    if (!is_maximum && !is_graphs && !(result.percent > 0 && result.percent <= 100)) {
        refuse("kind", kind, "max, graph or topP%");
    }
    const Json &area = member(values, "min_area");
    result.min_area = integer("min_area", area, 0, kMaxArea);
    if (result.min_area > 0 && !is_maximum) refuse("min_area", area, "0 but for the score max");
    const Json &rois = member(values, "rois");
    if (!rois.is(Kind::array) || rois.items.size() > kMostRois ||
        (is_graphs && !rois.items.empty())) {
        refuse("rois", rois, "a list of at most 16 names, none with the score graph");
    }
    for (const Json &name : rois.items) {
        const bool is_new =
            std::find(result.rois.begin(), result.rois.end(), name.text) == result.rois.end();
        if (!name.is(Kind::text) || !is_plain_name(name.text, kMaxRoiName) || !is_new) {
            refuse("rois", name, "up to 64 letters, digits, dots, dashes or underscores");
        }
        result.rois.push_back(name.text);
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
    if (scored != values.members.end()) manifest.scoring = scoring(*scored->second);
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
