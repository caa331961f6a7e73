// Images between submit and wait: a fixed number of places, and one thread that scores them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "detector.hpp"

namespace stpm::core {

class Queue {
  public:
    // Allocates everything that it will need.
    Queue(Detector &detector, std::size_t capacity);
    ~Queue();
    Queue(const Queue &) = delete;
    Queue &operator=(const Queue &) = delete;

    // Negative timeouts wait without end. Both throw Error(STPM_ERROR_TIMEOUT) when it is over.
    std::uint64_t submit(const stpm_image &image, std::int32_t timeout_ms);
    void wait(std::uint64_t ticket, std::int32_t timeout_ms, stpm_result &result);

  private:
    enum class State { free, filling, waiting, running, done, collecting };

    struct Place {
        State state = State::free;
        std::uint64_t ticket = 0;
        Size image_size;
        Placement placement;
        Bytes input;
        std::vector<float> map;
        float score = 0;
        stpm_status status = STPM_OK;
        std::string message;
    };

    void work();
    void score_batch() noexcept;
    void fail_batch(stpm_status status, const char *message) noexcept;
    Place *find_free();
    Place *find(std::uint64_t ticket);
    void release(Place &place);
    template <class Ready>
    void wait_until(std::unique_lock<std::mutex> &lock, std::int32_t timeout_ms,
                    const char *message, const Ready &ready);

    Detector &detector_;
    std::mutex mutex_;
    std::condition_variable changed_;  // a place was freed or finished
    std::condition_variable filled_;   // a place was filled, or the end has come
    std::vector<Place> places_;
    std::vector<Place *> order_;  // of those that wait
    std::vector<Place *> batch_;  // of those that run; the thread's alone
    std::uint64_t submitted_ = 0;
    bool ends_ = false;
    std::thread thread_;
};

}  // namespace stpm::core
