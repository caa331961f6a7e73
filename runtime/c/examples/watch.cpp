// Scores the PGM and PPM pictures of a folder, and those that arrive: watch BUNDLE FOLDER [COUNT]
// Ends after COUNT pictures, if given. Write pictures under another name and rename them, so that
// none is read half.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <stpm.hpp>

namespace {

namespace fs = std::filesystem;

struct Picture {
    std::vector<std::uint8_t> pixels;
    stpm_image image;
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

void score(const stpm::Detector &detector, const fs::path &path) {
    const Picture picture = read(path);
    const stpm::Result result = detector(picture.image);
    std::printf("%-9s  %.6g  %.6g  %s\n", result.is_anomalous ? "ANOMALOUS" : "ok",
                static_cast<double>(result.score), result.threshold, path.string().c_str());
    for (const stpm_region &region : result.regions) {
        std::printf("           top %d left %d bottom %d right %d\n", region.top, region.left,
                    region.bottom, region.right);
    }
    std::fflush(stdout);
}

bool is_picture(const fs::path &path) {
    return path.extension() == ".pgm" || path.extension() == ".ppm";
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 3) return std::fprintf(stderr, "usage: watch BUNDLE FOLDER [COUNT]\n"), 2;
    const std::size_t count = argc > 3 ? std::stoul(argv[3]) : SIZE_MAX;
    const stpm::Detector detector(argv[1]);
    std::set<fs::path> seen;
    while (seen.size() < count) {
        std::set<fs::path> found;
        for (const auto &entry : fs::directory_iterator(argv[2])) {
            if (is_picture(entry.path()) && seen.count(entry.path()) == 0) {
                found.insert(entry.path());
            }
        }
        for (const fs::path &path : found) {
            try {
                score(detector, path);
            } catch (const std::exception &error) {
                std::fprintf(stderr, "%s: %s\n", path.string().c_str(), error.what());
            }
            seen.insert(path);
        }
        if (found.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return 0;
} catch (const std::exception &error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
}
