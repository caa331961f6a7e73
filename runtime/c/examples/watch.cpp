// Scores the PGM and PPM pictures of a folder, and those that arrive, and keeps a record of them:
// watch BUNDLE FOLDER RECORD [COUNT]
// Ends after COUNT pictures, if given. Write pictures under another name and rename them, so that
// none is read half. RECORD is one of stpm-live: stpm-run BUNDLE --replay RECORD.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <stpm.hpp>

#include "camera.hpp"

namespace {

namespace fs = std::filesystem;

struct Picture {
    std::vector<std::uint8_t> pixels;
    stpm_image image = {};
};

Picture read(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int width = 0, height = 0, most = 0;
    file >> kind >> width >> height >> most;
    file.get();
    if (!file || (kind != "P5" && kind != "P6") || most != 255 || width < 1 || height < 1) {
        throw std::runtime_error("not a PGM or PPM of 8 bits");
    }
    const bool is_grey = kind == "P5";
    Picture picture;
    picture.pixels.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) *
                          (is_grey ? 1 : 3));
    file.read(reinterpret_cast<char *>(picture.pixels.data()),
              static_cast<std::streamsize>(picture.pixels.size()));
    if (!file) throw std::runtime_error("is cut short");
    picture.image = {picture.pixels.data(), height, width, 0, is_grey ? STPM_GREY : STPM_RGB};
    return picture;
}

void score(const stpm::Detector &detector, Camera &camera, const fs::path &path) {
    const auto taken = Record::Clock::now();
    const std::string name = fs::absolute(path).string();
    Picture picture;
    stpm::Result result;
    try {
        picture = read(path);
        result = detector(picture.image);
    } catch (const std::exception &error) {
        return camera.tell_error(name, taken, error.what());
    }
    camera.tell(name, taken, picture.image, result);
}

bool is_picture(const fs::path &path) {
    return path.extension() == ".pgm" || path.extension() == ".ppm";
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 4) return std::fprintf(stderr, "usage: watch BUNDLE FOLDER RECORD [COUNT]\n"), 2;
    const std::size_t count = argc > 4 ? std::stoul(argv[4]) : SIZE_MAX;
    const stpm::Detector detector(argv[1]);
    Record record(argv[3]);
    Camera camera(detector, record, "folder", bundle_hash(argv[1]));
    std::set<fs::path> seen;
    while (seen.size() < count) {
        std::set<fs::path> found;
        for (const auto &entry : fs::directory_iterator(argv[2])) {
            if (is_picture(entry.path()) && seen.count(entry.path()) == 0) {
                found.insert(entry.path());
            }
        }
        for (const fs::path &path : found) {
            if (seen.size() == count) break;
            score(detector, camera, path);
            seen.insert(path);
        }
        if (found.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return 0;
} catch (const std::exception &error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
}
