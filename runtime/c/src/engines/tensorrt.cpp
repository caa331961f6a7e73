// TensorRT 10 and 11 and TensorRT-RTX on an NVIDIA GPU. The plan is built from model.onnx when the
// bundle is opened, so that it fits the library and the card at hand.
#include "engines/tensorrt.hpp"

#include <cuda_runtime_api.h>

#include <new>
#include <stdexcept>

#include "engines/engine.hpp"

namespace stpm::core {
namespace {

void check(cudaError_t status) {
    if (status == cudaErrorMemoryAllocation) throw std::bad_alloc();
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

struct FreeDevice {
    void operator()(void *memory) const { cudaFree(memory); }
};
struct FreePinned {
    void operator()(void *memory) const { cudaFreeHost(memory); }
};
struct DestroyStream {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using Device = std::unique_ptr<void, FreeDevice>;
using Pinned = std::unique_ptr<void, FreePinned>;
using Stream = std::unique_ptr<CUstream_st, DestroyStream>;

// An array on the host, from which copies run asynchronously, and on the device.
struct Buffer {
    Device device;
    Pinned host;

    void reserve(std::size_t bytes) {
        void *memory = nullptr;
        device.reset();
        host.reset();
        check(cudaMalloc(&memory, bytes));
        device.reset(memory);
        check(cudaMallocHost(&memory, bytes));
        host.reset(memory);
    }
};

class TensorRtRequest : public Request {
  public:
    TensorRtRequest(nvinfer1::ICudaEngine &engine, const Contract &contract)
        : contract_(contract), context_(engine.createExecutionContext()) {
        cudaStream_t stream = nullptr;
        check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        stream_.reset(stream);
        if (!context_) throw std::runtime_error("TensorRT cannot create an execution context");
    }

    std::uint8_t *input(std::size_t count) override {
        if (count > capacity_) {
            capacity_ = 0;
            images_.reserve(count * contract_.input_bytes());
            maps_.reserve(count * contract_.map.pixels() * sizeof(float));
            scores_.reserve(count * sizeof(float));
            if (!context_->setTensorAddress("images", images_.device.get()) ||
                !context_->setTensorAddress("anomaly_map", maps_.device.get()) ||
                !context_->setTensorAddress("pred_score", scores_.device.get())) {
                throw std::runtime_error("the graph lacks images, anomaly_map or pred_score");
            }
            capacity_ = count;
        }
        return static_cast<std::uint8_t *>(images_.host.get());
    }

    Outputs run(std::size_t count) override {
        const nvinfer1::Dims4 shape(static_cast<std::int32_t>(count), contract_.input.height,
                                    contract_.input.width,
                                    static_cast<std::int32_t>(contract_.channels));
        if (!context_->setInputShape("images", shape)) {
            throw std::runtime_error("the graph does not take images of this shape");
        }
        check_output("anomaly_map", count * contract_.map.pixels());
        check_output("pred_score", count);
        cudaStream_t stream = stream_.get();
        check(cudaMemcpyAsync(images_.device.get(), images_.host.get(),
                              count * contract_.input_bytes(), cudaMemcpyHostToDevice, stream));
        if (!context_->enqueueV3(stream)) throw std::runtime_error("TensorRT failed");
        copy_back(maps_, count * contract_.map.pixels());
        copy_back(scores_, count);
        check(cudaStreamSynchronize(stream));
        return {static_cast<const float *>(maps_.host.get()),
                static_cast<const float *>(scores_.host.get())};
    }

  private:
    void check_output(const char *name, std::size_t expected) const {
        const nvinfer1::Dims shape = context_->getTensorShape(name);
        std::size_t size = 1;
        for (std::int32_t i = 0; i < shape.nbDims; ++i) {
            size *= static_cast<std::size_t>(shape.d[i]);
        }
        if (size != expected) {
            throw std::runtime_error("the outputs are not of the manifest's map_size");
        }
    }

    void copy_back(const Buffer &buffer, std::size_t count) const {
        check(cudaMemcpyAsync(buffer.host.get(), buffer.device.get(), count * sizeof(float),
                              cudaMemcpyDeviceToHost, stream_.get()));
    }

    Contract contract_;
    Buffer images_, maps_, scores_;
    std::size_t capacity_ = 0;
    Stream stream_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

class TensorRt : public Engine {
  public:
    TensorRt(const Bytes &model, const Contract &contract) : contract_(contract) {
        const auto plan = plan_from_onnx(model, contract, logger_);
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan->data(), plan->size()));
        if (!engine_) throw std::runtime_error(logger_.last_error());
    }

    std::unique_ptr<Request> request() override {
        return std::make_unique<TensorRtRequest>(*engine_, contract_);
    }

  private:
    Contract contract_;
    TensorRtLogger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
};

}  // namespace

// The number of processor threads means nothing here.
std::unique_ptr<Engine> open_tensorrt(const Bytes &model, const Contract &contract, int) {
    return std::make_unique<TensorRt>(model, contract);
}

}  // namespace stpm::core
