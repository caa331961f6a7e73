// What an image is known by in a record: the port of pixels_hash in runtime/live/verdict.py.
#pragma once

#include <string>

#include "stpm.h"

namespace stpm::core {

// Returns the SHA-256 of the size and the RGB bytes of a checked image, brought to 8 bits.
// Throws Error(STPM_ERROR_IMAGE) when a sample has more than `bit_depth` bits.
std::string pixels_hash(const stpm_image &image, int bit_depth);

}  // namespace stpm::core
