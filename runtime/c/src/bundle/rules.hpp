// What of a manifest says how images become maps, and maps scores.
#pragma once

#include "bundle/bundle.hpp"
#include "bundle/json.hpp"

namespace stpm::core {

// The port of runtime/bundle/scoring.py; throws Malformed.
Scoring parse_scoring(const Json &values);

// The port of runtime/bundle/tiling.py; throws Malformed where such tiles do not fit the image.
Tiling parse_tiling(const Json &values, Size image);

}  // namespace stpm::core
