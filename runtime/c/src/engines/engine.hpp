// What runs a deployment graph. One file an engine; engines.cpp lists those of this build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bundle/bundle.hpp"

namespace stpm::core {

// Valid until the request's next run.
struct Outputs {
    const float *maps;    // (count, map height, map width)
    const float *scores;  // (count)
};

// The buffers of one run at a time; serves one thread at a time.
class Request {
  public:
    virtual ~Request() = default;

    // Returns room for `count` inputs. `count` is a batch that the graph takes.
    virtual std::uint8_t *input(std::size_t count) = 0;

    // Scores what `input(count)` was filled with. Throws what the engine throws.
    virtual Outputs run(std::size_t count) = 0;
};

// A loaded graph. Many threads may have a request each.
class Engine {
  public:
    virtual ~Engine() = default;
    virtual std::unique_ptr<Request> request() = 0;
};

// `model` is the ONNX file's content; 0 threads leave the choice to the engine.
// Throws what the engine throws.
using OpenEngine = std::unique_ptr<Engine> (*)(const Bytes &model, const Contract &contract,
                                               int threads);

struct EngineEntry {
    const char *name;  // as in the bundle's manifest
    OpenEngine open;
};

// The engines of this build, fastest first.
const std::vector<EngineEntry> &engines();

}  // namespace stpm::core
