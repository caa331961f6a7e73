#include "fake_engine.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <new>
#include <stdexcept>
#include <thread>

#include "engines/engine.hpp"

std::atomic<Fault> fault{Fault::none};
std::atomic<int> delay_ms{0};
std::atomic<int> run_count{0};

namespace stpm::core {
namespace {

class FakeRequest : public Request {
  public:
    explicit FakeRequest(const Contract &contract) : contract_(contract) {}

    std::uint8_t *input(std::size_t count) override {
        if (inputs_.size() < count * contract_.input_bytes()) {
            inputs_.resize(count * contract_.input_bytes());
            maps_.resize(count * contract_.map.pixels());
            scores_.resize(count);
        }
        return inputs_.data();
    }

    Outputs run(std::size_t count) override {
        ++run_count;
        if (delay_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
        if (fault == Fault::error) throw std::runtime_error("the fake\n  engine failed");
        if (fault == Fault::memory) throw std::bad_alloc();
        if (fault == Fault::no_exception) throw 7;
        const auto [height, width] = contract_.map;
        for (std::size_t n = 0, out = 0; n < count; ++n) {
            scores_[n] = 0;
            for (std::int32_t y = 0; y < height; ++y) {
                for (std::int32_t x = 0; x < width; ++x, ++out) {
                    const std::int32_t row = y * contract_.input.height / height;
                    const std::int32_t column = x * contract_.input.width / width;
                    const std::size_t pixel = static_cast<std::size_t>(
                        row * contract_.input.width + column);
                    const std::uint8_t red = inputs_[n * contract_.input_bytes() + 3 * pixel];
                    maps_[out] = static_cast<float>(red) / 255.0F;
                    scores_[n] = std::max(scores_[n], maps_[out]);
                }
            }
        }
        if (fault == Fault::not_finite) maps_[0] = std::numeric_limits<float>::quiet_NaN();
        return {maps_.data(), scores_.data()};
    }

  private:
    Contract contract_;
    Bytes inputs_;
    std::vector<float> maps_, scores_;
};

class FakeEngine : public Engine {
  public:
    explicit FakeEngine(const Contract &contract) : contract_(contract) {}

    std::unique_ptr<Request> request() override {
        return std::make_unique<FakeRequest>(contract_);
    }

  private:
    Contract contract_;
};

std::unique_ptr<Engine> open_fake(const Bytes &model, const Contract &contract, int) {
    if (model.empty()) throw std::runtime_error("the graph is empty");
    return std::make_unique<FakeEngine>(contract);
}

}  // namespace

const std::vector<EngineEntry> &engines() {
    static const std::vector<EngineEntry> entries = {{"openvino", open_fake},
                                                     {"onnxruntime", open_fake}};
    return entries;
}

}  // namespace stpm::core
