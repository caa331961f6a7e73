// OpenVINO on the processor, in exactly the precisions that the graph asks for.
#include <openvino/openvino.hpp>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "engines/engine.hpp"

namespace stpm::core {
namespace {

class OpenVinoRequest : public Request {
  public:
    OpenVinoRequest(ov::InferRequest request, const Contract &contract)
        : request_(std::move(request)), contract_(contract) {}

    std::uint8_t *input(std::size_t count) override {
        if (count > capacity_) {
            views_.clear();
            buffer_ = ov::Tensor(ov::element::u8, shape(count));
            capacity_ = count;
            views_.resize(count + 1);
            is_set_ = false;
        }
        return buffer_.data<std::uint8_t>();
    }

    Outputs run(std::size_t count) override {
        // A tensor is made once for each batch, not for each run.
        if (!views_[count]) {
            views_[count] =
                ov::Tensor(ov::element::u8, shape(count), buffer_.data<std::uint8_t>());
        }
        if (current_ != count || !is_set_) {
            request_.set_tensor("images", views_[count]);
            current_ = count;
            is_set_ = true;
        }
        request_.infer();
        const ov::Tensor maps = request_.get_tensor("anomaly_map");
        const ov::Tensor scores = request_.get_tensor("pred_score");
        if (maps.get_size() != count * contract_.map.pixels() || scores.get_size() != count) {
            throw std::runtime_error("the outputs are not of the manifest's map_size");
        }
        return {maps.data<const float>(), scores.data<const float>()};
    }

  private:
    ov::Shape shape(std::size_t count) const {
        return {count, static_cast<std::size_t>(contract_.input.height),
                static_cast<std::size_t>(contract_.input.width), contract_.channels};
    }

    ov::InferRequest request_;
    Contract contract_;
    ov::Tensor buffer_;
    std::vector<ov::Tensor> views_;
    std::size_t capacity_ = 0, current_ = 0;
    bool is_set_ = false;
};

class OpenVino : public Engine {
  public:
    OpenVino(const Bytes &model, const Contract &contract, int threads) : contract_(contract) {
        ov::Core core;
        // Without ACCURACY OpenVINO computes in bf16 on processors that have it, scores included;
        // with it the types in the graph are obeyed.
        ov::AnyMap properties = {
            ov::hint::execution_mode(ov::hint::ExecutionMode::ACCURACY),
            ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
        };
        if (threads > 0) {  // of one run: as many run at once as there are processors for
            const int cores = static_cast<int>(std::thread::hardware_concurrency());
            const int streams = std::max(1, cores / threads);
            properties.insert(ov::num_streams(streams));
            properties.insert(ov::inference_num_threads(threads * streams));
        }
        const std::string content(model.begin(), model.end());
        compiled_ = core.compile_model(core.read_model(content, ov::Tensor()), "CPU", properties);
    }

    std::unique_ptr<Request> request() override {
        return std::make_unique<OpenVinoRequest>(compiled_.create_infer_request(), contract_);
    }

  private:
    Contract contract_;
    ov::CompiledModel compiled_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const Bytes &model, const Contract &contract, int threads) {
    return std::make_unique<OpenVino>(model, contract, threads);
}

}  // namespace stpm::core
