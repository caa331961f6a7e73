// JSON as Python's json.dumps writes it, to the byte: `stpm-run --replay` takes anything else for an
// altered line.
#pragma once

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

// Python's repr(float): the fewest digits that read back as the same number.
inline std::string json_number(double value) {
    if (!std::isfinite(value)) throw std::runtime_error("a number is not finite");
    char buffer[40];
    const auto end =
        std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    const std::string shortest(buffer, end);
    const std::size_t e = shortest.find('e');
    const int exponent = std::atoi(shortest.c_str() + e + 1);
    if (exponent < -4 || exponent > 15) return shortest;
    std::string sign, digits;
    for (const char c : shortest.substr(0, e)) {
        if (c == '-') sign = "-";
        if (c >= '0' && c <= '9') digits += c;
    }
    if (exponent < 0) {
        return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    }
    const std::size_t whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
    return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

// UTF-8 in ASCII; what is no UTF-8 becomes U+FFFD.
inline std::string json_text(const std::string &utf8) {
    std::string out = "\"";
    const auto escape = [&](unsigned unit) {
        char text[16];
        std::snprintf(text, sizeof text, "\\u%04x", unit);
        out += text;
    };
    for (std::size_t i = 0; i < utf8.size(); ++i) {
        const auto byte = [&](std::size_t at) {
            return at < utf8.size() ? static_cast<unsigned char>(utf8[at]) : 0U;
        };
        unsigned code = byte(i);
        const std::size_t named = std::string("\"\\\b\f\n\r\t").find(utf8[i]);
        if (named != std::string::npos) {
            out += {'\\', "\"\\bfnrt"[named]};
        } else if (code >= 0x20 && code < 0x7F) {
            out += utf8[i];
        } else {
            const unsigned more = code >= 0xF0 ? 3 : code >= 0xE0 ? 2 : code >= 0xC0 ? 1 : 0;
            if (code >= 0x80) code = more > 0 ? code & (0x3FU >> more) : 0xFFFD;
            for (unsigned k = 0; k < more && code != 0xFFFD; ++k) {
                const bool goes_on = (byte(i + 1) & 0xC0U) == 0x80;
                code = goes_on ? code << 6 | (byte(++i) & 0x3FU) : 0xFFFD;
            }
            if (code < 0x10000) {
                escape(code);
            } else {
                escape(0xD800 + ((code - 0x10000) >> 10));
                escape(0xDC00 + ((code - 0x10000) & 0x3FF));
            }
        }
    }
    return out + "\"";
}

// The members of an object, in order.
class Fields {
  public:
    Fields &text(const std::string &name, const std::string &value) {
        return add(name, json_text(value));
    }
    Fields &number(const std::string &name, double value) { return add(name, json_number(value)); }
    Fields &count(const std::string &name, std::size_t value) {
        return add(name, std::to_string(value));
    }
    Fields &object(const std::string &name, const Fields &value) {
        return add(name, "{" + value.members_ + "}");
    }
    Fields &texts(const std::string &name, const std::vector<std::string> &values) {
        std::string list;
        for (const std::string &value : values) list += (list.empty() ? "" : ",") + json_text(value);
        return add(name, "[" + list + "]");
    }

    const std::string &members() const { return members_; }

  private:
    Fields &add(const std::string &name, const std::string &json) {
        members_ += (members_.empty() ? "" : ",") + json_text(name) + ":" + json;
        return *this;
    }

    std::string members_;
};
