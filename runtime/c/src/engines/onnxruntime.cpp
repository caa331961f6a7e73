// ONNX Runtime on the processor.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <optional>
#include <stdexcept>

#include "engines/engine.hpp"

namespace stpm::core {
namespace {

constexpr const char *kInput = "images";
constexpr std::array<const char *, 2> kOutputs = {"anomaly_map", "pred_score"};

class OnnxRuntimeRequest : public Request {
  public:
    OnnxRuntimeRequest(Ort::Session &session, const Contract &contract)
        : session_(session),
          contract_(contract),
          memory_(Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault)) {}

    std::uint8_t *input(std::size_t count) override {
        if (buffer_.size() < count * contract_.input_bytes()) {
            buffer_.resize(count * contract_.input_bytes());
        }
        return buffer_.data();
    }

    Outputs run(std::size_t count) override {
        const std::array<std::int64_t, 4> shape = {static_cast<std::int64_t>(count),
                                                   contract_.input.height, contract_.input.width,
                                                   static_cast<std::int64_t>(contract_.channels)};
        const auto images = Ort::Value::CreateTensor<std::uint8_t>(
            memory_, buffer_.data(), count * contract_.input_bytes(), shape.data(), shape.size());
        outputs_ = session_.Run(Ort::RunOptions{nullptr}, &kInput, &images, 1, kOutputs.data(),
                                kOutputs.size());
        if (size(0) != count * contract_.map.pixels() || size(1) != count) {
            throw std::runtime_error("the outputs are not of the manifest's map_size");
        }
        return {outputs_[0].GetTensorData<float>(), outputs_[1].GetTensorData<float>()};
    }

  private:
    std::size_t size(std::size_t output) const {
        const auto info = outputs_[output].GetTensorTypeAndShapeInfo();
        const bool is_float = info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        return is_float ? info.GetElementCount() : 0;
    }

    Ort::Session &session_;
    Contract contract_;
    Ort::MemoryInfo memory_;
    Bytes buffer_;
    std::vector<Ort::Value> outputs_;
};

class OnnxRuntime : public Engine {
  public:
    OnnxRuntime(const Bytes &model, const Contract &contract, int threads)
        : contract_(contract), environment_(ORT_LOGGING_LEVEL_ERROR, "stpm") {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        session_.emplace(environment_, model.data(), model.size(), options);
    }

    std::unique_ptr<Request> request() override {
        return std::make_unique<OnnxRuntimeRequest>(*session_, contract_);
    }

  private:
    Contract contract_;
    Ort::Env environment_;
    std::optional<Ort::Session> session_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const Bytes &model, const Contract &contract,
                                         int threads) {
    return std::make_unique<OnnxRuntime>(model, contract, threads);
}

}  // namespace stpm::core
