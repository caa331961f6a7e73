#include <NvOnnxParser.h>

#include <stdexcept>

#include "engines/tensorrt.hpp"

namespace stpm::core {
namespace {

nvinfer1::Dims input_shape(std::size_t count, const Contract &contract) {
    return nvinfer1::Dims4(static_cast<std::int32_t>(count), contract.input.height,
                           contract.input.width, static_cast<std::int32_t>(contract.channels));
}

// In TensorRT 10 a flag makes the network obey the graph's types; later ones always do.
nvinfer1::NetworkDefinitionCreationFlags network_flags() {
#if NV_TENSORRT_MAJOR == 10
    using Flag = nvinfer1::NetworkDefinitionCreationFlag;
    return 1U << static_cast<std::uint32_t>(Flag::kSTRONGLY_TYPED);
#else
    return 0;
#endif
}

template <class T>
std::unique_ptr<T> made(T *object, const TensorRtLogger &logger) {
    if (object == nullptr) throw std::runtime_error(logger.last_error());
    return std::unique_ptr<T>(object);
}

}  // namespace

void TensorRtLogger::log(Severity severity, const char *message) noexcept {
    if (severity > Severity::kERROR) return;
    try {
        last_error_ = message;
    } catch (...) {
        last_error_.clear();  // out of memory
    }
}

std::unique_ptr<nvinfer1::IHostMemory> plan_from_onnx(
    const Bytes &model, const Contract &contract, TensorRtLogger &logger,
    void (*configure)(nvinfer1::IBuilderConfig &)) {
    const auto builder = made(nvinfer1::createInferBuilder(logger), logger);
    const auto network = made(builder->createNetworkV2(network_flags()), logger);
    const auto parser = made(nvonnxparser::createParser(*network, logger), logger);
    if (!parser->parse(model.data(), model.size())) {
        throw std::runtime_error(parser->getNbErrors() ? parser->getError(0)->desc()
                                                       : logger.last_error());
    }
    const auto config = made(builder->createBuilderConfig(), logger);
    // On by default; it would round the factors of every FP32 product to 10 bits.
    config->clearFlag(nvinfer1::BuilderFlag::kTF32);
    if (contract.smallest_batch != contract.largest_batch) {
        using Select = nvinfer1::OptProfileSelector;
        nvinfer1::IOptimizationProfile *profile = builder->createOptimizationProfile();
        const auto smallest = input_shape(contract.smallest_batch, contract);
        const auto largest = input_shape(contract.largest_batch, contract);
        if (profile == nullptr || !profile->setDimensions("images", Select::kMIN, smallest) ||
            !profile->setDimensions("images", Select::kOPT, largest) ||
            !profile->setDimensions("images", Select::kMAX, largest) ||
            config->addOptimizationProfile(profile) < 0) {
            throw std::runtime_error(logger.last_error());
        }
    }
    if (configure != nullptr) configure(*config);
    return made(builder->buildSerializedNetwork(*network, *config), logger);
}

}  // namespace stpm::core
