// Scores images larger than the graph takes, tile by tile: the port of runtime/tiled.py.
#pragma once

#include <memory>

#include "bundle/bundle.hpp"
#include "engines/engine.hpp"

namespace stpm::core {

// What an engine for tiles is opened with: a row of numbers is its map.
Contract tile_contract(const Tiling &tiling);

// Makes images of a size of an engine's tiles. The engine outlives it.
class TiledEngine : public Engine {
  public:
    TiledEngine(Engine &engine, const Tiling &tiling, Size image)
        : engine_(engine), tiling_(tiling), image_(image) {}

    std::unique_ptr<Request> request() override;

  private:
    Engine &engine_;
    Tiling tiling_;
    Size image_;
};

}  // namespace stpm::core
