// Measures on request, so that another program can measure in turns: stpm_bench BUNDLE
//
//     resize HEIGHT WIDTH TO_HEIGHT TO_WIDTH   prints the milliseconds of one resize
//     run HEIGHT WIDTH                         prints those of one stpm_run, those of the engine in
//                                              it, and the allocations outside the engine
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "bundle/bundle.hpp"
#include "engines/engine.hpp"
#include "image/resize.hpp"
#include "stpm.h"

namespace {

thread_local bool in_engine = false;
thread_local long allocations = 0;  // outside the engine
double engine_ms = 0;               // of the last run

double now_ms() {
    const auto time = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(time).count();
}

}  // namespace

void *operator new(std::size_t size) {
    if (!in_engine) ++allocations;
    void *memory = std::malloc(size ? size : 1);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

namespace stpm::core {

std::unique_ptr<Engine> open_openvino(const Bytes &, const Contract &, int);

namespace {

class TimedRequest : public Request {
  public:
    explicit TimedRequest(std::unique_ptr<Request> request) : request_(std::move(request)) {}

    std::uint8_t *input(std::size_t count) override { return request_->input(count); }

    Outputs run(std::size_t count) override {
        in_engine = true;
        const double start = now_ms();
        const Outputs outputs = request_->run(count);
        engine_ms = now_ms() - start;
        in_engine = false;
        return outputs;
    }

  private:
    std::unique_ptr<Request> request_;
};

class TimedEngine : public Engine {
  public:
    explicit TimedEngine(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}

    std::unique_ptr<Request> request() override {
        return std::make_unique<TimedRequest>(engine_->request());
    }

  private:
    std::unique_ptr<Engine> engine_;
};

std::unique_ptr<Engine> open_timed(const Bytes &model, const Contract &contract, int threads) {
    return std::make_unique<TimedEngine>(open_openvino(model, contract, threads));
}

}  // namespace

const std::vector<EngineEntry> &engines() {
    static const std::vector<EngineEntry> entries = {{"openvino", open_timed}};
    return entries;
}

}  // namespace stpm::core

namespace {

// The bundle's first golden image, brought to a camera's size.
class Frames {
  public:
    explicit Frames(const stpm::core::Bundle &bundle)
        : golden_(bundle.golden()), contract_(bundle.manifest().golden_contract()) {}

    stpm_image of(std::int32_t height, std::int32_t width) {
        auto &pixels = frames_[{height, width}];
        if (pixels.empty()) {
            const stpm_image image = {golden_.images.data(), contract_.input.height,
                                      contract_.input.width, 0, format()};
            pixels.resize(bytes(height, width));
            resizer_.resize(image, height, width, contract_.channels, pixels.data());
        }
        return {pixels.data(), height, width, 0, format()};
    }

    std::size_t channels() const { return contract_.channels; }
    std::size_t bytes(std::int32_t height, std::int32_t width) const {
        return stpm::core::Size{height, width}.pixels() * channels();
    }

  private:
    stpm_format format() const { return channels() == 1 ? STPM_GREY : STPM_RGB; }

    stpm::core::Golden golden_;
    stpm::core::Contract contract_;
    stpm::core::Resizer resizer_;
    std::map<std::pair<int, int>, std::vector<std::uint8_t>> frames_;
};

void resize(stpm::core::Resizer &resizer, Frames &frames, std::vector<std::uint8_t> &out) {
    std::int32_t height = 0, width = 0, to_height = 0, to_width = 0;
    std::cin >> height >> width >> to_height >> to_width;
    const stpm_image image = frames.of(height, width);
    out.resize(frames.bytes(to_height, to_width));
    const double start = now_ms();
    resizer.resize(image, to_height, to_width, frames.channels(), out.data());
    std::printf("%.6f\n", now_ms() - start);
}

bool run(stpm_detector *detector, Frames &frames, std::vector<float> &map) {
    std::int32_t height = 0, width = 0;
    std::cin >> height >> width;
    const stpm_image image = frames.of(height, width);
    stpm_region regions[16];
    stpm_result result = {map.data(), map.size(), regions, 16, 0, 0, 0, 0, nullptr, 0, 0};
    const long before = allocations;
    const double start = now_ms();
    const stpm_status status = stpm_run(detector, &image, 1, &result);
    const double total_ms = now_ms() - start;
    std::printf("%.6f %.6f %ld\n", total_ms, engine_ms, allocations - before);
    return status == STPM_OK;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return std::fprintf(stderr, "usage: stpm_bench BUNDLE\n"), 2;
    stpm_detector *detector = nullptr;
    stpm_info info = {};
    info.struct_size = sizeof info;
    bool works = stpm_open(argv[1], nullptr, &detector) == STPM_OK &&
                 stpm_get_info(detector, &info) == STPM_OK;
    std::vector<float> map(static_cast<std::size_t>(info.map_height) *
                           static_cast<std::size_t>(info.map_width));
    if (!works) return std::fprintf(stderr, "%s\n", stpm_last_error(detector)), 1;
    Frames frames{stpm::core::Bundle(argv[1])};
    stpm::core::Resizer resizer;
    std::vector<std::uint8_t> out;
    std::string command;
    while (works && std::cin >> command) {
        if (command == "resize") resize(resizer, frames, out);
        if (command == "run") works = run(detector, frames, map);
        std::fflush(stdout);
    }
    if (!works) std::fprintf(stderr, "%s\n", stpm_last_error(detector));
    stpm_close(detector);
    return works ? 0 : 1;
}
