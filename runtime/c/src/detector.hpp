// A bundle, an engine, and the decision: the port of runtime/detector.py. Threads may share one.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "aligner.hpp"
#include "bundle/bundle.hpp"
#include "engines/engine.hpp"
#include "image/image.hpp"
#include "engines/pool.hpp"
#include "map_score.hpp"
#include "regions.hpp"
#include "image/resize.hpp"
#include "stpm.h"

namespace stpm::core {

class Detector {
  public:
    // Opens and checks the bundle, loads the engine and replays the golden images.
    // `engine` empty: the first of this build that the bundle names.
    Detector(const std::string &path, const std::string &engine, int threads);

    const Manifest &manifest() const { return bundle_.manifest(); }
    const Contract &contract() const { return manifest().contract; }
    const std::string &engine_name() const { return engine_name_; }
    const Thresholds &thresholds() const { return thresholds_; }

    // Throws Error(STPM_ERROR_IMAGE) when the image does not fit.
    void check(const stpm_image &image) const;
    // Throws Error(STPM_ERROR_BUFFER or STPM_ERROR_ARGUMENT) when the buffers do not fit.
    void check(const stpm_result &result) const;

    // Whether parts are brought to a reference.
    bool aligns() const { return aligner_ != nullptr; }

    // Brings a checked image to the graph's input, and its part to the reference, if there is one.
    // Throws Error(STPM_ERROR_IMAGE) when a pixel has more bits than the camera, or colours where
    // the graph takes grey.
    void fit(const stpm_image &image, std::uint8_t *input, Placement &placement);

    // Scores any number of inputs: fill(i, input) writes each, take(i, score, map) gets each.
    template <class Fill, class Take>
    void score(std::size_t count, const Fill &fill, const Take &take);

    // Holds an image's score against both limits.
    stpm_verdict judge(double score) const;

    // Fills the caller's result from the graph's score and map of an image of that size, whose part
    // `fit` has placed.
    void report(float score, const float *map, Size image_size, const Placement &placement,
                stpm_result &result);

  private:
    // A map and its labels in the camera's coordinates.
    struct Seen {
        std::vector<float> map;
        Bytes labels;
    };
    struct Fitter {
        DepthReducer depth;
        Resizer resizer;
    };

    std::string choose(const std::string &engine) const;
    std::unique_ptr<Engine> open_engine(int threads) const;
    std::unique_ptr<Engine> whole_engine(Size image);
    void replay(const Golden &golden);
    void replay_scoring(const Golden &golden);
    void report_regions(const float *map, const Bytes &labels, Size image_size,
                        stpm_result &result);
    void report_unaligned(Size image_size, stpm_result &result);
    void report_scored(float score, const float *map, Size image_size, stpm_result &result);
    stpm_roi roi(std::size_t index, double score) const;
    Outputs run(Request &request, std::size_t batch, std::size_t count, Size map) const;

    // As `score`, with inputs and maps of another size.
    template <class Fill, class Take>
    void score_with(Request &request, const Contract &contract, std::size_t count,
                    const Fill &fill, const Take &take) const;

    Bundle bundle_;
    std::string engine_name_;
    Thresholds thresholds_;
    float pixel_threshold_ = 0;
    ScoringMap scoring_map_;  // empty where the graph's own score is the image's
    std::unique_ptr<Engine> engine_;
    std::unique_ptr<Engine> tiled_;  // around it, where the images are cut into tiles
    std::unique_ptr<Aligner> aligner_;  // none where images are scored as they are
    Pool<Request> requests_;
    Pool<Fitter> fitters_;
    Pool<RegionFinder> finders_;
    Pool<MapScorer> scorers_;
    Pool<Seen> seen_;
};

template <class Fill, class Take>
void Detector::score(std::size_t count, const Fill &fill, const Take &take) {
    score_with(*requests_.borrow(), contract(), count, fill, take);
}

template <class Fill, class Take>
void Detector::score_with(Request &request, const Contract &contract, std::size_t count,
                          const Fill &fill, const Take &take) const {
    const std::size_t bytes = contract.input_bytes();
    const std::size_t pixels = contract.map.pixels();
    for (std::size_t start = 0; start < count; start += contract.largest_batch) {
        const std::size_t images = std::min(contract.largest_batch, count - start);
        // A graph with a smallest batch gets the last image again, and the surplus is dropped.
        const std::size_t batch = std::max(images, contract.smallest_batch);
        std::uint8_t *inputs = request.input(batch);
        for (std::size_t i = 0; i < images; ++i) fill(start + i, inputs + i * bytes);
        for (std::size_t i = images; i < batch; ++i) {
            std::memcpy(inputs + i * bytes, inputs + (images - 1) * bytes, bytes);
        }
        const Outputs outputs = run(request, batch, images, contract.map);
        for (std::size_t i = 0; i < images; ++i) {
            take(start + i, outputs.scores[i], outputs.maps + i * pixels);
        }
    }
}

}  // namespace stpm::core
