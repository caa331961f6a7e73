// In place of src/aligner.cpp in a build without OpenCV.
#include "aligner.hpp"
#include "error.hpp"

namespace stpm::core {

void to_camera(const Placement &, const float *, const Bytes &, Size, std::vector<float> &,
               Bytes &) {
    throw Error(STPM_ERROR_INTERNAL, "this libstpm does not align parts.");
}

std::unique_ptr<Aligner> open_aligner(const Bundle &bundle) {
    throw Error(STPM_ERROR_ENGINE, bundle.path() +
                                       ": aligns parts, which this libstpm was built without; "
                                       "build it with -DSTPM_ALIGN=ON, which needs OpenCV.");
}

}  // namespace stpm::core
