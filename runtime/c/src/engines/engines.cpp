#include "engines/engine.hpp"

namespace stpm::core {

std::unique_ptr<Engine> open_tensorrt(const Bytes &, const Contract &, int);
std::unique_ptr<Engine> open_openvino(const Bytes &, const Contract &, int);
std::unique_ptr<Engine> open_onnxruntime(const Bytes &, const Contract &, int);

const std::vector<EngineEntry> &engines() {
    static const std::vector<EngineEntry> entries = {
#if defined(STPM_TENSORRT)
        {STPM_TENSORRT, open_tensorrt},
#endif
#if defined(STPM_OPENVINO)
        {"openvino", open_openvino},
#endif
#if defined(STPM_ONNXRUNTIME)
        {"onnxruntime", open_onnxruntime},
#endif
    };
    return entries;
}

}  // namespace stpm::core
