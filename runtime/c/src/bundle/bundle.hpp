// An opened bundle, as docs/format.md specifies it: the port of runtime/bundle/archive.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace stpm::core {

using Bytes = std::vector<std::uint8_t>;

struct Size {
    std::int32_t height = 0, width = 0;

    std::size_t pixels() const {
        return static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
    }
};

// What the graph takes: uint8 (N,height,width,channels).
struct Contract {
    Size input, map;
    std::size_t smallest_batch = 1, largest_batch = 1;
    bool resizes = true;  // on the host; else the graph does, from images of exactly that size
    int bit_depth = 16;   // that the camera uses of samples of 16 bits
    std::size_t channels = 3;  // RGB, or 1 for grey

    std::size_t input_bytes() const { return input.pixels() * channels; }
};

struct Thresholds {
    double image = 0, pixel = 0;
    double warn = std::numeric_limits<double>::infinity();  // none
    std::vector<double> roi_weights;
    std::vector<double> scores;  // of the good images, rising
    std::map<std::string, std::vector<double>> statistics;  // of these images
};

// Reduces a size to a longer side of at most so many pixels.
Size within(Size size, double longest);

// How far parts may lie from the reference: the port of runtime/bundle/alignment.py.
struct Alignment {
    Size size;  // of the reference, and of the camera's images
    double shift = 0, degrees = 0, correlation = 0;

    Size working_size() const;
};

// How maps become scores: the port of runtime/bundle/scoring.py.
struct Scoring {
    double percent = 0;         // the mean of the highest so many; 0: the maximum
    std::int64_t min_area = 0;  // of the smallest defect, in pixels of the image
    std::vector<std::string> rois;
    std::optional<Alignment> align;

    bool is_graphs() const { return min_area == 0 && rois.empty() && !align; }
    std::size_t roi_count() const { return rois.empty() ? 1 : rois.size(); }
};

// How a large image is cut into tiles: the port of runtime/bundle/tiling.py.
struct Tiling {
    Size size;  // of a tile, the graph's input
    std::size_t smallest_batch = 1, largest_batch = 1;  // of tiles
    std::int32_t margin = 0;                            // at inner edges, not kept
    std::vector<std::int32_t> strides;                  // pixels a cell of each level

    // One of the tiles along an axis: its first pixel, and the pixels kept of it, [from, to).
    struct Cut {
        std::int32_t start, from, to;
    };

    std::int32_t stride() const { return strides.back(); }
    std::int32_t step(std::int32_t tile) const;
    std::vector<Cut> cuts(std::int32_t length, std::int32_t tile) const;
    Size golden_size(Size image) const;
};

// Where maps are scored, and what the golden maps then score.
struct ScoringMap {
    Bytes labels;                      // (map height, map width): 0, or 1 plus a region's index
    std::vector<float> golden_scores;  // (count, regions)
};

// What parts are brought to, and parts that were, in grey and of Alignment::working_size.
struct Reference {
    Bytes picture;
    std::vector<float> correlations;  // of the golden parts
    Bytes images, aligned;            // of each
};

struct FileEntry {
    std::string sha256;
    std::size_t size_bytes = 0;
};

struct Manifest {
    std::string name, precision;
    Contract contract;
    double tolerance = 0;
    std::map<std::string, FileEntry> files;
    std::map<std::string, Thresholds> engines;
    Scoring scoring;
    std::optional<Tiling> tiles;

    // Of golden images, which are the corners of images that are cut into tiles.
    Contract golden_contract() const;
};

// Real inputs and what the FP32 reference makes of them.
struct Golden {
    std::size_t count = 0;
    Bytes images;              // (count, height, width, channels)
    std::vector<float> maps;   // (count, map height, map width)
    std::vector<float> scores; // (count)
};

// Throws Error(STPM_ERROR_BUNDLE); the message begins with `path`.
Manifest parse_manifest(const Bytes &content, const std::string &path);
Golden parse_golden(const Bytes &content, const Contract &contract, const std::string &path);
ScoringMap parse_scoring_map(const Bytes &content, Size map, std::size_t roi_count,
                             const std::string &path);
Reference parse_reference(const Bytes &content, Size working, const std::string &path);

// A validated manifest, and files that are hashed when they are read.
class Bundle {
  public:
    // `path` in UTF-8. Throws Error(STPM_ERROR_BUNDLE).
    explicit Bundle(const std::string &path);

    const std::string &path() const { return path_; }
    const Manifest &manifest() const { return manifest_; }

    // Returns a file's content, only when it matches the manifest's hash.
    Bytes read(const std::string &name) const;
    Golden golden() const;
    // Of a manifest whose scoring is not the graph's own.
    ScoringMap scoring_map() const;
    // Of a manifest whose scoring aligns parts.
    Reference reference() const;

  private:
    std::string path_;
    std::filesystem::path folder_;
    Manifest manifest_;
};

}  // namespace stpm::core
