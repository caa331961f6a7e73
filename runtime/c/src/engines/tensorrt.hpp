// The part of the TensorRT engine that needs no GPU with TensorRT-RTX: building a plan.
#pragma once

#include <NvInfer.h>

#include <memory>
#include <string>

#include "bundle/bundle.hpp"

namespace stpm::core {

// Keeps the last error, for the exception.
class TensorRtLogger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char *message) noexcept override;
    const std::string &last_error() const { return last_error_; }

  private:
    std::string last_error_;
};

// Compiles a graph. `configure` may change the configuration before the build, for instance to
// name the graphics cards that TensorRT-RTX builds for. Throws std::runtime_error.
std::unique_ptr<nvinfer1::IHostMemory> plan_from_onnx(
    const Bytes &model, const Contract &contract, TensorRtLogger &logger,
    void (*configure)(nvinfer1::IBuilderConfig &) = nullptr);

}  // namespace stpm::core
