// Brings parts that lie shifted and turned to a reference, and their maps back: the port of
// runtime/aligner.py. A build without OpenCV has src/no_aligner.cpp in place of src/aligner.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "bundle/bundle.hpp"

namespace stpm::core {

// Above every threshold.
constexpr float kUnalignedScore = std::numeric_limits<float>::max();

// Where a part lies: the matrix goes from the reference's pixels (x, y) to the camera's.
struct Placement {
    bool is_found = false;
    std::array<double, 6> matrix = {};  // two rows
    Size size;                          // of the pictures that these pixels are of
    double correlation = 0;             // of the reference with the aligned part
};

// Threads may share one.
class Aligner {
  public:
    virtual ~Aligner() = default;

    // Brings the part in an image (height, width, channels) to the reference, in place; an image
    // whose part is not found stays as it is.
    virtual Placement align(std::uint8_t *image, Size size, int channels) const = 0;
};

// Brings a map and its labels into the camera's coordinates; 0 where the reference does not reach.
void to_camera(const Placement &placement, const float *map, const Bytes &labels, Size size,
               std::vector<float> &seen_map, Bytes &seen_labels);

// Reads the bundle's reference, and replays its golden parts. Throws Error(STPM_ERROR_ENGINE) in a
// build without OpenCV, Error(STPM_ERROR_PARITY) where a golden part is brought elsewhere.
std::unique_ptr<Aligner> open_aligner(const Bundle &bundle);

}  // namespace stpm::core
