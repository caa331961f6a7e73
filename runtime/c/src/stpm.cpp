// The C boundary: every exception becomes a status and a message.
#include "stpm.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <unistd.h>
#endif

#include "detector.hpp"
#include "drift.hpp"
#include "error.hpp"
#include "image/pixels_hash.hpp"
#include "queue.hpp"
#include "sha256.hpp"

namespace {

using stpm::core::Detector;
using stpm::core::Error;
using stpm::core::Placement;
using stpm::core::Queue;

constexpr std::int32_t kDefaultQueue = 8;
constexpr std::int32_t kMaxQueue = 1024;
constexpr char kNoMemory[] = "out of memory; close other programs or use smaller batches.";

// Of this process; Windows has no fork that would change it.
long process_id() {
#ifdef _WIN32
    return 0;
#else
    return static_cast<long>(getpid());
#endif
}

}  // namespace

struct stpm_detector {
    const long process = process_id();
    std::unique_ptr<Detector> detector;
    std::mutex mutex;  // of all below
    std::unique_ptr<Queue> queue;  // made by the first submit; after `detector`, which it uses
    std::size_t queue_capacity = kDefaultQueue;
    std::map<std::thread::id, std::string> messages;

    stpm_status fail(stpm_status status, const char *message) noexcept {
        try {
            const std::lock_guard lock(mutex);
            messages[std::this_thread::get_id()] = message;
        } catch (...) {
            // The status alone has to do.
        }
        return status;
    }

    // Runs a call's work and turns what it throws into a status.
    template <class Work>
    stpm_status guard(const Work &work) noexcept {
        try {
            work();
            return STPM_OK;
        } catch (const Error &error) {
            return fail(error.status(), error.what());
        } catch (const std::bad_alloc &) {
            return fail(STPM_ERROR_MEMORY, kNoMemory);
        } catch (const std::exception &error) {
            return fail(STPM_ERROR_INTERNAL, error.what());
        } catch (...) {
            return fail(STPM_ERROR_INTERNAL,
                        "something was thrown that is not an exception; please report it.");
        }
    }

    Detector &opened() const {
        if (!detector) {
            throw Error(STPM_ERROR_ARGUMENT, "the detector was not opened; check stpm_open.");
        }
        // The engine's threads do not exist in a forked child, which would wait for them.
        if (process != process_id()) {
            throw Error(STPM_ERROR_ENGINE,
                        "the detector was opened before this process was forked, and its engine "
                        "does not survive a fork; call stpm_open in each child process.");
        }
        return *detector;
    }

    Queue &opened_queue() {
        Detector &opened_detector = opened();
        const std::lock_guard lock(mutex);
        if (!queue) queue = std::make_unique<Queue>(opened_detector, queue_capacity);
        return *queue;
    }
};

namespace {

void require(const void *pointer, const char *name) {
    if (pointer == nullptr) {
        throw Error(STPM_ERROR_ARGUMENT, std::string(name) + " is NULL; pass one.");
    }
}

// Options of a program that was compiled with this header or a later one of this API version.
stpm_options read_options(const stpm_options *options) {
    stpm_options result = {};
    if (options == nullptr) return result;
    if (options->struct_size < sizeof result) {
        throw Error(STPM_ERROR_ARGUMENT, "options.struct_size is " +
                                             std::to_string(options->struct_size) +
                                             ", expected sizeof(stpm_options); set it.");
    }
    const auto *bytes = reinterpret_cast<const unsigned char *>(options);
    for (std::size_t i = sizeof result; i < options->struct_size; ++i) {
        if (bytes[i] != 0) {
            throw Error(STPM_ERROR_ARGUMENT,
                        "an option is set that this libstpm does not know; use a newer libstpm.");
        }
    }
    std::memcpy(&result, options, sizeof result);
    if (result.threads < 0) {
        throw Error(STPM_ERROR_ARGUMENT, "options.threads is " + std::to_string(result.threads) +
                                             ", expected 0 or more; set it.");
    }
    if (result.queue < 0 || result.queue > kMaxQueue) {
        throw Error(STPM_ERROR_ARGUMENT, "options.queue is " + std::to_string(result.queue) +
                                             ", expected 0 to " + std::to_string(kMaxQueue) +
                                             "; set it.");
    }
    return result;
}

}  // namespace

stpm_status stpm_open(const char *path, const stpm_options *options, stpm_detector **detector) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    *detector = new (std::nothrow) stpm_detector;
    if (*detector == nullptr) return STPM_ERROR_MEMORY;
    return (*detector)->guard([&] {
        require(path, "path");
        const stpm_options chosen = read_options(options);
        const char *engine = chosen.engine == nullptr ? "" : chosen.engine;
        if (chosen.queue > 0) {
            (*detector)->queue_capacity = static_cast<std::size_t>(chosen.queue);
        }
        (*detector)->detector = std::make_unique<Detector>(path, engine, chosen.threads);
    });
}

stpm_status stpm_close(stpm_detector *detector) {
    // A forked child leaks its copy, whose destructor would wait for the engine's threads.
    if (detector != nullptr && detector->process == process_id()) delete detector;
    return STPM_OK;
}

stpm_status stpm_get_info(stpm_detector *detector, stpm_info *info) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(info, "info");
        if (info->struct_size < sizeof *info) {
            throw Error(STPM_ERROR_ARGUMENT, "info.struct_size is " +
                                                 std::to_string(info->struct_size) +
                                                 ", expected sizeof(stpm_info); set it.");
        }
        const Detector &opened = detector->opened();
        const auto &contract = opened.contract();
        info->name = opened.manifest().name.c_str();
        info->engine = opened.engine_name().c_str();
        info->precision = opened.manifest().precision.c_str();
        info->input_height = contract.input.height;
        info->input_width = contract.input.width;
        info->resizes = contract.resizes ? 1 : 0;
        info->map_height = contract.map.height;
        info->map_width = contract.map.width;
        info->smallest_batch = static_cast<std::int32_t>(contract.smallest_batch);
        info->largest_batch = static_cast<std::int32_t>(contract.largest_batch);
        info->threshold = opened.thresholds().image;
        info->pixel_threshold = opened.thresholds().pixel;
        info->roi_count = static_cast<std::int32_t>(opened.manifest().scoring.rois.size());
        info->input_channels = static_cast<std::int32_t>(contract.channels);
    });
}

stpm_status stpm_run(stpm_detector *detector, const stpm_image *images, size_t count,
                     stpm_result *results) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        Detector &opened = detector->opened();
        if (count == 0) return;
        require(images, "images");
        require(results, "results");
        for (std::size_t i = 0; i < count; ++i) {
            opened.check(images[i]);
            opened.check(results[i]);
        }
        Placement none;
        std::vector<Placement> placements(opened.aligns() ? count : 0);
        const auto placement = [&](std::size_t i) -> Placement & {
            return placements.empty() ? none : placements[i];
        };
        const auto fill = [&](std::size_t i, std::uint8_t *input) {
            opened.fit(images[i], input, placement(i));
        };
        const auto take = [&](std::size_t i, float score, const float *map) {
            opened.report(score, map, {images[i].height, images[i].width}, placement(i),
                          results[i]);
        };
        opened.score(count, fill, take);
    });
}

stpm_status stpm_submit(stpm_detector *detector, const stpm_image *image, int32_t timeout_ms,
                        uint64_t *ticket) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(image, "image");
        require(ticket, "ticket");
        *ticket = detector->opened_queue().submit(*image, timeout_ms);
    });
}

stpm_status stpm_wait(stpm_detector *detector, uint64_t ticket, int32_t timeout_ms,
                      stpm_result *result) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(result, "result");
        detector->opened_queue().wait(ticket, timeout_ms, *result);
    });
}

stpm_status stpm_judge(stpm_detector *detector, float score, int32_t *verdict) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(verdict, "verdict");
        *verdict = detector->opened().judge(static_cast<double>(score));
    });
}

struct stpm_drift {
    stpm_detector *detector;
    stpm::core::Drift drift;
};

stpm_status stpm_drift_open(stpm_detector *detector, double level, stpm_drift **drift) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(drift, "drift");
        *drift = nullptr;
        *drift = new stpm_drift{detector, {detector->opened().thresholds(), level}};
    });
}

stpm_status stpm_drift_update(stpm_drift *drift, const stpm_image *image, float score,
                              stpm_drift_state *state) {
    if (drift == nullptr) return STPM_ERROR_ARGUMENT;
    return drift->detector->guard([&] {
        require(image, "image");
        require(state, "state");
        const auto &opened = drift->detector->opened();
        opened.check(*image);
        const int depth = opened.contract().bit_depth;
        drift->drift.update(static_cast<double>(score), *image, depth, *state);
    });
}

stpm_status stpm_drift_close(stpm_drift *drift) {
    delete drift;
    return STPM_OK;
}

stpm_status stpm_hash_image(stpm_detector *detector, const stpm_image *image, char *sha256) {
    if (detector == nullptr) return STPM_ERROR_ARGUMENT;
    return detector->guard([&] {
        require(image, "image");
        require(sha256, "sha256");
        const auto &opened = detector->opened();
        opened.check(*image);
        const std::string digits =
            stpm::core::pixels_hash(*image, opened.contract().bit_depth);
        std::memcpy(sha256, digits.c_str(), digits.size() + 1);
    });
}

stpm_status stpm_hash_bytes(const void *bytes, size_t size, char *sha256) {
    if ((bytes == nullptr && size > 0) || sha256 == nullptr) return STPM_ERROR_ARGUMENT;
    try {
        stpm::core::Sha256 hash;
        hash.add(bytes, size);
        const std::string digits = hash.digits();
        std::memcpy(sha256, digits.c_str(), digits.size() + 1);
        return STPM_OK;
    } catch (const std::bad_alloc &) {
        return STPM_ERROR_MEMORY;
    } catch (...) {
        return STPM_ERROR_INTERNAL;
    }
}

const char *stpm_last_error(stpm_detector *detector) {
    if (detector == nullptr) return "there is no detector: out of memory, or NULL was passed.";
    const std::lock_guard lock(detector->mutex);
    const auto found = detector->messages.find(std::this_thread::get_id());
    return found == detector->messages.end() ? "" : found->second.c_str();
}

const char *stpm_status_string(stpm_status status) {
    switch (status) {
    case STPM_OK: return "ok";
    case STPM_ERROR_ARGUMENT: return "wrong argument";
    case STPM_ERROR_BUNDLE: return "unusable bundle";
    case STPM_ERROR_ENGINE: return "engine failed";
    case STPM_ERROR_PARITY: return "golden images not reproduced";
    case STPM_ERROR_IMAGE: return "unusable image";
    case STPM_ERROR_BUFFER: return "buffer too small";
    case STPM_ERROR_MEMORY: return "out of memory";
    case STPM_ERROR_TIMEOUT: return "timeout";
    case STPM_ERROR_INTERNAL: return "internal error";
    }
    return "unknown status";
}

uint32_t stpm_api_version(void) { return STPM_API_VERSION; }
