#include "queue.hpp"

#include <algorithm>
#include <new>

#include "error.hpp"

namespace stpm::core {

Queue::Queue(Detector &detector, std::size_t capacity) : detector_(detector), places_(capacity) {
    for (Place &place : places_) {
        place.input.resize(detector.contract().input_bytes());
        place.map.resize(detector.contract().map.pixels());
    }
    order_.reserve(capacity);
    batch_.reserve(capacity);
    thread_ = std::thread([this] { work(); });
}

Queue::~Queue() {
    {
        const std::lock_guard lock(mutex_);
        ends_ = true;
    }
    filled_.notify_all();
    thread_.join();
}

template <class Ready>
void Queue::wait_until(std::unique_lock<std::mutex> &lock, std::int32_t timeout_ms,
                       const char *message, const Ready &ready) {
    if (timeout_ms < 0) {
        changed_.wait(lock, ready);
    } else if (!changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
        throw Error(STPM_ERROR_TIMEOUT, message);
    }
}

Queue::Place *Queue::find_free() {
    const auto is_free = [](const Place &place) { return place.state == State::free; };
    const auto found = std::find_if(places_.begin(), places_.end(), is_free);
    return found == places_.end() ? nullptr : &*found;
}

Queue::Place *Queue::find(std::uint64_t ticket) {
    const auto holds = [&](const Place &place) {
        return place.ticket == ticket && place.state != State::free &&
               place.state != State::collecting;
    };
    const auto found = std::find_if(places_.begin(), places_.end(), holds);
    return found == places_.end() ? nullptr : &*found;
}

void Queue::release(Place &place) {
    {
        const std::lock_guard lock(mutex_);
        place.state = State::free;
    }
    changed_.notify_all();
}

std::uint64_t Queue::submit(const stpm_image &image, std::int32_t timeout_ms) {
    detector_.check(image);
    Place *place = nullptr;
    std::uint64_t ticket = 0;
    {
        std::unique_lock lock(mutex_);
        wait_until(lock, timeout_ms, "the queue stayed full; wait for a result, then submit again.",
                   [&] { return (place = find_free()) != nullptr; });
        ticket = ++submitted_;
        place->ticket = ticket;
        place->state = State::filling;
    }
    place->image_size = {image.height, image.width};
    try {
        detector_.fit(image, place->input.data(), place->placement);
    } catch (...) {
        release(*place);
        throw;
    }
    {
        const std::lock_guard lock(mutex_);
        place->state = State::waiting;
        order_.push_back(place);
    }
    filled_.notify_one();
    return ticket;
}

void Queue::wait(std::uint64_t ticket, std::int32_t timeout_ms, stpm_result &result) {
    detector_.check(result);
    Place *place = nullptr;
    {
        std::unique_lock lock(mutex_);
        // Another thread may wait for the same ticket and get it first.
        wait_until(lock, timeout_ms, "the result is not ready; wait for it again.", [&] {
            place = find(ticket);
            return place == nullptr || place->state == State::done;
        });
        if (place == nullptr) {
            throw Error(STPM_ERROR_ARGUMENT, "got ticket " + std::to_string(ticket) +
                                                 ", which was never given or is used up; wait "
                                                 "once for each ticket of stpm_submit.");
        }
        place->state = State::collecting;
    }
    try {
        if (place->status != STPM_OK) throw Error(place->status, place->message);
        detector_.report(place->score, place->map.data(), place->image_size, place->placement,
                         result);
    } catch (...) {
        release(*place);
        throw;
    }
    release(*place);
}

void Queue::work() {
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            filled_.wait(lock, [&] { return ends_ || !order_.empty(); });
            if (ends_) return;
            const std::size_t count = std::min(order_.size(), detector_.contract().largest_batch);
            const auto end = order_.begin() + static_cast<std::ptrdiff_t>(count);
            batch_.assign(order_.begin(), end);
            order_.erase(order_.begin(), end);
            for (Place *place : batch_) place->state = State::running;
        }
        score_batch();
        {
            const std::lock_guard lock(mutex_);
            for (Place *place : batch_) place->state = State::done;
        }
        changed_.notify_all();
    }
}

void Queue::score_batch() noexcept {
    const auto fill = [&](std::size_t i, std::uint8_t *input) {
        std::copy(batch_[i]->input.begin(), batch_[i]->input.end(), input);
    };
    const auto take = [&](std::size_t i, float score, const float *map) {
        batch_[i]->score = score;
        std::copy_n(map, batch_[i]->map.size(), batch_[i]->map.begin());
        batch_[i]->status = STPM_OK;
    };
    try {
        detector_.score(batch_.size(), fill, take);
    } catch (const Error &error) {
        fail_batch(error.status(), error.what());
    } catch (const std::bad_alloc &) {
        fail_batch(STPM_ERROR_MEMORY,
                   "out of memory; close other programs or use smaller batches.");
    } catch (...) {
        fail_batch(STPM_ERROR_INTERNAL,
                   "the engine threw something that is not an exception; please report it.");
    }
}

void Queue::fail_batch(stpm_status status, const char *message) noexcept {
    for (Place *place : batch_) {
        place->status = status;
        try {
            place->message = message;
        } catch (const std::bad_alloc &) {
            place->message.clear();
        }
    }
}

}  // namespace stpm::core
