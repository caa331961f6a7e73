// The fields of a manifest, their types and ranges checked one by one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "bundle/bundle.hpp"
#include "bundle/json.hpp"

namespace stpm::core {

using Kind = Json::Kind;

constexpr std::int64_t kMaxSide = 16384;
constexpr std::size_t kMaxText = 1000;  // characters
constexpr std::size_t kMaxFileName = 128;

// What a field is, where it is not what it must be; the caller adds the path.
struct Malformed {
    std::string reason;
};

[[noreturn]] inline void refuse(const std::string &key, const Json &value, const std::string &expected) {
    throw Malformed{key + " is " + brief(value) + ", expected " + expected};
}

[[noreturn]] inline void refuse_name(const std::string &name) {
    Json value;
    value.kind = Kind::text;
    value.text = name;
    throw Malformed{brief(value) + " is not a plain file name"};
}

inline const Json &member(const Json &values, const char *key) {
    const auto found = values.members.find(key);
    if (found == values.members.end()) throw Malformed{std::string("'") + key + "' is missing"};
    return *found->second;
}

inline const Json &object(const std::string &key, const Json &value) {
    if (!value.is(Kind::object)) refuse(key, value, "an object");
    return value;
}

inline std::int64_t integer(const std::string &key, const Json &value, std::int64_t low,
                     std::int64_t high) {
    if (!value.is(Kind::integer) || value.integer < low || value.integer > high) {
        refuse(key, value,
               "an integer in " + std::to_string(low) + ".." + std::to_string(high));
    }
    return value.integer;
}

inline double number(const std::string &key, const Json &value) {
    if (!value.is(Kind::integer) && !value.is(Kind::number)) refuse(key, value, "a finite number");
    return value.number;
}

inline const std::string &text(const std::string &key, const Json &value,
                        std::size_t most = kMaxText) {
    const auto starts = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
    const auto count = std::count_if(value.text.begin(), value.text.end(), starts);
    if (!value.is(Kind::text) || static_cast<std::size_t>(count) > most) {
        refuse(key, value, "a text of at most " + std::to_string(most) + " characters");
    }
    return value.text;
}

inline void texts(const std::string &key, const Json &value) {
    for (const auto &[name, inner] : object(key, value).members) text(name, *inner);
}

inline std::string choice(const std::string &key, const Json &value,
                   std::initializer_list<const char *> known) {
    std::string names;
    for (const char *name : known) {
        if (value.is(Kind::text) && value.text == name) return name;
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    refuse(key, value, "one of " + names);
}

inline std::pair<std::int64_t, std::int64_t> pair(const std::string &key, const Json &value,
                                           std::int64_t high) {
    if (!value.is(Kind::array) || value.items.size() != 2) refuse(key, value, "two integers");
    return {integer(key, value.items[0], 1, high), integer(key, value.items[1], 1, high)};
}

inline Size size(const std::string &key, const Json &value) {
    const auto [height, width] = pair(key, value, kMaxSide);
    return {static_cast<std::int32_t>(height), static_cast<std::int32_t>(width)};
}

// ASCII alone, whatever the locale.
inline bool is_letter_or_digit(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Plain names only, so that nothing outside the folder can be named.
inline bool is_plain_name(const std::string &name, std::size_t most = kMaxFileName) {
    const auto fits = [](char c) {
        return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-';
    };
    return !name.empty() && name.size() <= most && is_letter_or_digit(name[0]) &&
           std::all_of(name.begin(), name.end(), fits);
}

// A member that bundles of schema version 1 lack; a null is as good as none.
inline const Json *optional(const Json &values, const char *key) {
    const auto found = values.members.find(key);
    const bool is_there = found != values.members.end() && !found->second->is(Kind::null);
    return is_there ? found->second.get() : nullptr;
}

}  // namespace stpm::core
