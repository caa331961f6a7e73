// Hashes, numbers and texts of a record are Python's, and its end is looked at: test_record GOLDEN
#include <cmath>
#include <filesystem>
#include <thread>

#include "check.hpp"
#include "fake_engine.hpp"
#include "record.hpp"

namespace {

namespace fs = std::filesystem;

void hashes(const std::string &golden) {
    stpm_detector *detector = open_detector(golden + "/fake/deep.stpm", "");
    std::ifstream file = open_file(golden + "/hashes.txt");
    int format, height, width, images = 0;
    std::ptrdiff_t stride;
    std::uint32_t seed;
    std::string expected;
    char digits[STPM_SHA256_SIZE] = {};
    while (file >> format >> height >> width >> stride >> seed >> expected) {
        const auto bytes = image_noise(
            format, 12, static_cast<std::size_t>(height) * static_cast<std::size_t>(stride), seed);
        const stpm_image image = {bytes.data(), height, width, stride, format};
        CHECK_STATUS(STPM_OK, detector, stpm_hash_image(detector, &image, digits));
        CHECK(digits == expected);
        ++images;
    }
    CHECK(images == 30);
    const std::vector<std::uint8_t> bright(2, 0xFF);
    const stpm_image beyond = {bright.data(), 1, 1, 0, STPM_GREY16};
    CHECK(stpm_hash_image(detector, &beyond, digits) == STPM_ERROR_IMAGE);
    CHECK(stpm_hash_image(detector, nullptr, digits) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_hash_image(detector, &beyond, nullptr) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_hash_image(nullptr, &beyond, digits) == STPM_ERROR_ARGUMENT);
    stpm_close(detector);

    // FIPS 180-2, appendix B.1.
    CHECK(stpm_hash_bytes("abc", 3, digits) == STPM_OK);
    CHECK(digits == std::string("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    CHECK(stpm_hash_bytes(nullptr, 0, digits) == STPM_OK);
    CHECK(std::string(digits).rfind("e3b0c44298fc1c14", 0) == 0);
    CHECK(stpm_hash_bytes(nullptr, 1, digits) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_hash_bytes("abc", 3, nullptr) == STPM_ERROR_ARGUMENT);
}

std::string from_hex(const std::string &hex) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
}

void json(const std::string &golden) {
    std::ifstream file = open_file(golden + "/json.txt");
    std::string value, expected;
    int numbers = 0, texts = 0;
    while (std::getline(file, value) && std::getline(file, expected)) {
        if (value.back() == '.') {
            CHECK(json_text(from_hex(value)) == expected);
            ++texts;
        } else {
            CHECK(json_number(std::strtod(value.c_str(), nullptr)) == expected);
            ++numbers;
        }
    }
    CHECK(numbers == 5510 && texts == 4);
    CHECK(json_text("a\xFF\xC3") == "\"a\\ufffd\\ufffd\"");
    const Fields inner = Fields().number("x", 0.5);
    CHECK(Fields().texts("a", {"b", "c"}).object("d", inner).count("e", 7).members() ==
          "\"a\":[\"b\",\"c\"],\"d\":{\"x\":0.5},\"e\":7");
}

class Folder {
  public:
    explicit Folder(const char *name) : path(fs::temp_directory_path() / name) {
        fs::remove_all(path);
    }
    ~Folder() { fs::remove_all(path); }

    std::vector<std::string> lines() const {
        std::vector<fs::path> files;
        for (const auto &entry : fs::directory_iterator(path)) {
            if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
        }
        std::sort(files.begin(), files.end());
        std::vector<std::string> found;
        for (const fs::path &file : files) {
            std::ifstream content(file);
            for (std::string line; std::getline(content, line);) found.push_back(line + "\n");
        }
        return found;
    }

    const fs::path path;
};

constexpr std::chrono::hours kDay{24};
const Record::Clock::time_point kNoon{std::chrono::seconds(1'777'896'000)};  // 2026-05-04T12:00:00Z

void write(const fs::path &folder, int count, Record::Clock::time_point time = kNoon) {
    Record record(folder);
    for (int i = 0; i < count; ++i) record.append(time, Fields().text("verdict", "ok"));
}

bool is_refused(const fs::path &folder) {
    try {
        const Record record(folder);
    } catch (const std::runtime_error &error) {
        return std::string(error.what()).find("is cut or was altered") != std::string::npos;
    }
    return false;
}

void put(const fs::path &file, const std::string &content) {
    std::ofstream(file, std::ios::binary) << content;
}

void chain() {
    const Folder folder("stpm_test_record");
    write(folder.path, 2);
    write(folder.path, 1, kNoon + kDay);
    write(folder.path, 1, kNoon);  // yesterday's last frame
    std::string previous(64, '0');
    for (const std::string &line : folder.lines()) {
        CHECK(line.find("\"previous\":\"" + previous + "\"}\n") != std::string::npos);
        previous = stpm::hash(line);
    }
    CHECK(folder.lines().size() == 4);
    CHECK(folder.lines()[0].rfind("{\"time\":\"2026-05-04T12:00:00.000000+00:00\",\"verdict\"", 0) == 0);
    std::ifstream last(folder.path / "last.json");
    std::string said;
    std::getline(last, said);
    CHECK(said == "{\"lines\": 4, \"sha256\": \"" + previous + "\"}");
}

// last.json of a killed process, torn lines, and ends that are not as they were written.
void ends() {
    const Folder folder("stpm_test_record_ends");
    const fs::path last = folder.path / "last.json";
    write(folder.path, 3);
    const fs::path file = folder.path / "verdicts-2026-05-04.jsonl";
    const auto lines = folder.lines();
    const std::string whole = lines[0] + lines[1] + lines[2];
    for (const std::size_t said : {0U, 1U, 2U}) {
        const std::string hash = said == 0 ? std::string(64, '0') : stpm::hash(lines[said - 1]);
        put(last, "{\"lines\": " + std::to_string(said) + ", \"sha256\": \"" + hash + "\"}");
        put(file, whole + lines[0].substr(0, 30));
        write(folder.path, 0);
        CHECK(folder.lines() == lines);
    }
    fs::remove(last);
    write(folder.path, 0);
    put(file, lines[0] + lines[1]);
    CHECK(is_refused(folder.path));
    put(file, lines[0] + lines[1] + "{\"x\":1}\n");
    CHECK(is_refused(folder.path));
    put(file, lines[0] + lines[2]);
    fs::remove(last);
    CHECK(is_refused(folder.path));
    put(file, whole);
    write(folder.path, 1);
    CHECK(folder.lines().size() == 4);
}

void threads() {
    const Folder folder("stpm_test_record_threads");
    {
        Record record(folder.path);
        std::vector<std::thread> writers;
        for (int i = 0; i < 4; ++i) {
            writers.emplace_back([&] {
                for (int k = 0; k < 20; ++k) record.append(kNoon, Fields().count("number", 1));
            });
        }
        for (std::thread &writer : writers) writer.join();
        put(folder.path / "verdicts-2026-05-04.jsonl", "");
        try {
            record.append(kNoon, Fields().count("number", 1));
            CHECK(false);
        } catch (const std::runtime_error &error) {
            CHECK(std::string(error.what()).find("somebody else") != std::string::npos);
        }
    }
    CHECK(is_refused(folder.path));
}

}  // namespace

int main(int, char **argv) {
    hashes(argv[1]);
    json(argv[1]);
    chain();
    ends();
    threads();
}
