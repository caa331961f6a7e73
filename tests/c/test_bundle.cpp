// What Python refuses is refused, what it accepts is accepted: test_bundle GOLDEN
#include "bundle.hpp"

#include <iterator>

#include "check.hpp"
#include "error.hpp"

namespace {

void refuses_malformed(const std::string &folder) {
    std::ifstream words = open_file(folder + "/words.txt");
    std::string word;
    int count = 0;
    for (; std::getline(words, word); ++count) {
        char name[32];
        std::snprintf(name, sizeof name, "/%03d.stpm", count);
        const std::string path = folder + name;
        stpm_detector *detector = nullptr;
        const stpm_status status = stpm_open(path.c_str(), nullptr, &detector);
        const std::string message = stpm_last_error(detector);
        if (status != STPM_ERROR_BUNDLE || message.find(word) == std::string::npos) {
            std::fprintf(stderr, "%s: expected a message with \"%s\", got \"%s\" (%s)\n",
                         path.c_str(), word.c_str(), stpm_status_string(status), message.c_str());
            std::exit(1);
        }
        CHECK(message.size() < 600 + path.size());
        stpm_info info = {};
        info.struct_size = sizeof info;
        CHECK(stpm_get_info(detector, &info) == STPM_ERROR_ARGUMENT);
        stpm_close(detector);
    }
    std::printf("%d malformed bundles refused\n", count);
    CHECK(count > 200);
}

void judges_as_python(const std::string &folder) {
    std::ifstream verdicts = open_file(folder + "/verdicts.txt");
    std::string verdict;
    int count = 0;
    for (; std::getline(verdicts, verdict); ++count) {
        char name[32];
        std::snprintf(name, sizeof name, "/%03d.json", count);
        std::ifstream file = open_file(folder + name);
        const stpm::core::Bytes content((std::istreambuf_iterator<char>(file)), {});
        std::string got = "accepted", message;
        try {
            stpm::core::parse_manifest(content, "manifest.json");
        } catch (const stpm::core::Error &error) {
            got = "refused";
            message = error.what();
        }
        if (got != verdict) {
            std::fprintf(stderr, "%s: Python %s it, C %s it %s\n", (folder + name).c_str(),
                         verdict.c_str(), got.c_str(), message.c_str());
            std::exit(1);
        }
    }
    std::printf("%d changed manifests judged as Python judges them\n", count);
    CHECK(count == 400);
}

// Fields that only bundles with a built engine have.
void checks_built_engines(const std::string &verdicts) {
    std::ifstream file = open_file(verdicts + "/scratch.stpm/wished.json");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto is_accepted = [&](const std::string &fields) {
        const std::string key = "\"parity\":";
        std::string changed = text;
        changed.insert(changed.find(key), fields);
        try {
            stpm::core::parse_manifest({changed.begin(), changed.end()}, "manifest.json");
        } catch (const stpm::core::Error &error) {
            CHECK(std::strstr(error.what(), "expected") != nullptr);
            return false;
        }
        return true;
    };
    for (const char *right : {"", R"("file": null, )", R"("file": "model.onnx", )",
                              R"("verified": false, )", R"("layer_precisions": {"a": "f32"}, )"}) {
        CHECK(is_accepted(right));
    }
    for (const char *wrong : {R"("file": "other", )", R"("file": 1, )", R"("verified": 1, )",
                              R"("layer_precisions": {"a": 1}, )", R"("layer_precisions": 1, )"}) {
        CHECK(!is_accepted(wrong));
    }
}

}  // namespace

int main(int, char **argv) {
    const std::string golden = argv[1];
    refuses_malformed(golden + "/malformed");
    judges_as_python(golden + "/verdicts");
    checks_built_engines(golden + "/verdicts");
}
