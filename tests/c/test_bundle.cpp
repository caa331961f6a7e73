// What Python refuses is refused, what it accepts is accepted: test_bundle GOLDEN
#include "bundle/bundle.hpp"

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

}  // namespace

int main(int, char **argv) {
    const std::string golden = argv[1];
    refuses_malformed(golden + "/malformed");
    judges_as_python(golden + "/verdicts");
}
