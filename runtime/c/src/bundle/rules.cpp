#include "bundle/rules.hpp"

#include <algorithm>
#include <string>

#include "bundle/fields.hpp"

namespace stpm::core {
namespace {

constexpr std::size_t kMaxRoiName = 64, kMostRois = 16;
constexpr std::int64_t kMaxArea = std::int64_t{1} << 28;
constexpr std::size_t kMostLevels = 8;
constexpr std::int64_t kMostStride = 64;
constexpr double kMostShift = 0.5, kMostDegrees = 180;
constexpr double kLongest = 256;  // pixels of the pictures that places are found in

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

}  // namespace

namespace {

double bounded(const char *key, const Json &values, double low, double high) {
    const Json &value = member(values, key);
    if (number(key, value) < low || value.number > high) {
        refuse(key, value, "a number within its limits");
    }
    return value.number;
}

Alignment parse_alignment(const Json &values) {
    object("it", values);
    Alignment result;
    result.size = size("size", member(values, "size"));
    result.shift = bounded("shift", values, 0, kMostShift);
    if (result.shift == 0) refuse("shift", member(values, "shift"), "a share above 0");
    result.degrees = bounded("degrees", values, 0, kMostDegrees);
    result.correlation = bounded("correlation", values, 0, 1);
    return result;
}

}  // namespace

Size within(Size size, double longest) {
    const double scale =
        std::min(1.0, longest / static_cast<double>(std::max(size.height, size.width)));
    const auto side = [&](std::int32_t pixels) {
        return std::max(1, static_cast<std::int32_t>(pixels * scale + 0.5));
    };
    return {side(size.height), side(size.width)};
}

Size Alignment::working_size() const { return within(size, kLongest); }

Scoring parse_scoring(const Json &values) {
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
    const Json *align = optional(values, "align");
    try {
        if (align != nullptr) result.align = parse_alignment(*align);
    } catch (const Malformed &malformed) {
        throw Malformed{"align: " + malformed.reason};
    }
    if (align != nullptr && is_graphs) refuse("align", *align, "null with the score graph");
    return result;
}

namespace {

std::vector<std::int32_t> integers(const Json &values, const char *key, std::size_t least,
                                   std::size_t most) {
    const Json &list = member(values, key);
    if (!list.is(Kind::array) || list.items.size() < least || list.items.size() > most) {
        refuse(key, list, "a list of integers");
    }
    std::vector<std::int32_t> result;
    for (const Json &item : list.items) {
        result.push_back(static_cast<std::int32_t>(integer(key, item, 1, INT32_MAX)));
    }
    return result;
}

}  // namespace

Tiling parse_tiling(const Json &values, Size image) {
    object("tiles", values);
    const auto size = integers(values, "size", 2, 2), batch = integers(values, "batch", 2, 2);
    Tiling tiling;
    tiling.size = {size[0], size[1]};
    tiling.strides = integers(values, "strides", 1, kMostLevels);
    if (batch[0] > batch[1]) refuse("batch", member(values, "batch"), "the smallest first");
    tiling.smallest_batch = static_cast<std::size_t>(batch[0]);
    tiling.largest_batch = static_cast<std::size_t>(batch[1]);
    const Json &margin = member(values, "margin");
    tiling.margin = static_cast<std::int32_t>(integer("margin", margin, 0, INT32_MAX));
    const std::int32_t stride = tiling.stride();
    const auto divides = [&](std::int32_t finer) { return stride % finer == 0; };
    if (stride > kMostStride || !std::all_of(tiling.strides.begin(), tiling.strides.end(), divides)) {
        refuse("strides", member(values, "strides"), "divisors of the last one, that up to 64");
    }
    if (tiling.margin % stride != 0) refuse("margin", margin, "a multiple of the last stride");
    for (const auto &[tile, length] : {std::pair{tiling.size.height, image.height},
                                       std::pair{tiling.size.width, image.width}}) {
        const bool fits = length >= tile && (length - tile) % stride == 0;
        if (!fits || (length > tile && tiling.step(tile) < stride)) {
            throw Malformed{"tiles of " + std::to_string(tile) + " pixels with a margin of " +
                            std::to_string(tiling.margin) + " do not fit " +
                            std::to_string(length) + " pixels in steps of " +
                            std::to_string(stride)};
        }
    }
    return tiling;
}

}  // namespace stpm::core
