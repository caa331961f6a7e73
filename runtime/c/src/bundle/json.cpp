#include "bundle/json.hpp"

#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace stpm::core {
namespace {

using Source = nlohmann::json;
using Kind = Json::Kind;

// Receives what nlohmann's parser meets. The names are nlohmann's.
class Builder {
  public:
    explicit Builder(Json &root) : root_(root) {}

    bool null() { return add(Kind::null) != nullptr; }

    bool boolean(bool value) {
        add(Kind::boolean)->boolean = value;
        return true;
    }

    bool number_integer(Source::number_integer_t value) {
        Json *added = add(Kind::integer);
        added->integer = value;
        added->number = static_cast<double>(value);
        return true;
    }

    bool number_unsigned(Source::number_unsigned_t value) {
        constexpr auto most = std::numeric_limits<std::int64_t>::max();
        Json *added = add(Kind::integer);
        added->integer = value > static_cast<std::uint64_t>(most) ? most
                                                                  : static_cast<std::int64_t>(value);
        added->number = static_cast<double>(value);
        return true;
    }

    // Also gets integers of more than 64 bits.
    bool number_float(Source::number_float_t value, const std::string &digits) {
        const bool is_integer = digits.find_first_of(".eE") == std::string::npos;
        Json *added = add(is_integer ? Kind::integer : Kind::number);
        added->number = value;
        added->integer = value < 0 ? std::numeric_limits<std::int64_t>::min()
                                   : std::numeric_limits<std::int64_t>::max();
        return true;
    }

    bool string(std::string &value) {
        add(Kind::text)->text = std::move(value);
        return true;
    }

    bool binary(Source::binary_t &) { return false; }  // not in JSON

    bool start_object(std::size_t) { return open(Kind::object); }
    bool start_array(std::size_t) { return open(Kind::array); }
    bool end_object() { return close(); }
    bool end_array() { return close(); }

    bool key(std::string &name) {
        key_ = std::move(name);
        return true;
    }

    bool parse_error(std::size_t, const std::string &, const Source::exception &error) {
        throw std::invalid_argument(error.what());
    }

  private:
    Json *add(Kind kind) {
        Json *added = &root_;
        if (!open_.empty() && open_.back()->is(Kind::array)) {
            added = &open_.back()->items.emplace_back();
        } else if (!open_.empty()) {
            auto &member = open_.back()->members[key_];
            member = std::make_unique<Json>();
            added = member.get();
        }
        added->kind = kind;
        return added;
    }

    bool open(Kind kind) {
        if (open_.size() >= kMaxJsonDepth) {
            throw std::invalid_argument("nested more than " + std::to_string(kMaxJsonDepth) +
                                        " deep");
        }
        // An array's items do not move while one of them is open: it is the last.
        open_.push_back(add(kind));
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    Json &root_;
    std::vector<Json *> open_;
    std::string key_;
};

}  // namespace

Json parse_json(const std::vector<std::uint8_t> &content) {
    Json root;
    Builder builder(root);
    Source::sax_parse(content.begin(), content.end(), &builder);
    return root;
}

std::string brief(const Json &value) {
    constexpr std::size_t longest = 57;
    switch (value.kind) {
    case Kind::null: return "null";
    case Kind::boolean: return value.boolean ? "true" : "false";
    case Kind::object: return "an object";
    case Kind::array: return "an array of " + std::to_string(value.items.size());
    case Kind::text: break;
    case Kind::integer:
    case Kind::number: {
        char text[40];
        const bool has_fraction = value.is(Kind::number);
        std::snprintf(text, sizeof text, has_fraction ? "%#.9g" : "%.17g", value.number);
        return text;
    }
    }
    std::string text = "'" + value.text.substr(0, longest);
    for (char &c : text) {
        if (static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) > '~') c = '?';
    }
    return text + (value.text.size() > longest ? "...'" : "'");
}

}  // namespace stpm::core
