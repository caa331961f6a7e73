// Scores images larger than the graph takes, tile by tile: the port of runtime/tiled.py.
#pragma once

#include <memory>

#include "bundle/bundle.hpp"
#include "engines/engine.hpp"

namespace stpm::core {

// What an engine for tiles is opened with: a row of numbers is its map. `channels` of the images.
Contract tile_contract(const Tiling &tiling, std::size_t channels);

// Makes images of a size of an engine's tiles. The engine outlives it.
class TiledEngine : public Engine {
  public:
    TiledEngine(Engine &engine, const Tiling &tiling, Size image, std::size_t channels)
        : engine_(engine), tiling_(tiling), image_(image), channels_(channels) {}

    std::unique_ptr<Request> request() override;

  private:
    Engine &engine_;
    Tiling tiling_;
    Size image_;
    std::size_t channels_;
};

}  // namespace stpm::core
