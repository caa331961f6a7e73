// A JSON document as plain values. nlohmann::json parses it, but its own values may end the
// process when memory runs out, since their destructor allocates.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace stpm::core {

constexpr int kMaxJsonDepth = 500;

struct Json {
    enum class Kind { null, boolean, integer, number, text, array, object };

    Kind kind = Kind::null;
    bool boolean = false;
    std::int64_t integer = 0;  // bounded: a larger one is the largest, a lower one the lowest
    double number = 0;         // also of an integer; finite
    std::string text;
    std::vector<Json> items;
    std::map<std::string, std::unique_ptr<Json>> members;  // of equal keys the last

    bool is(Kind other) const { return kind == other; }
};

// Throws std::invalid_argument with the reason when the content is not JSON, has a number beyond
// 64-bit floats, or is nested more than kMaxJsonDepth deep.
Json parse_json(const std::vector<std::uint8_t> &content);

// A value for a message, in a few words.
std::string brief(const Json &value);

}  // namespace stpm::core
