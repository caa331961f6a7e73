// stpm for C++17: stpm.h with RAII, exceptions and containers. Header-only.
//
//     stpm::Detector detector("bottle.stpm");
//     stpm::Result result = detector(stpm::view(mat));          // a cv::Mat
//     result = detector({pixels, height, width, 0, STPM_BGR});  // or any other pixels
//     if (result.is_anomalous) reject(result.regions);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "stpm.h"

namespace stpm {

// Thrown by a failed call; what() is the sentence of stpm_last_error.
class Error : public std::runtime_error {
  public:
    Error(stpm_status status, const std::string &message)
        : std::runtime_error(message), status_(status) {}

    stpm_status status() const noexcept { return status_; }

  private:
    stpm_status status_;
};

// A view of contiguous objects owned elsewhere, like C++20's std::span.
template <class T>
class Span {
  public:
    Span(T *data, std::size_t size) : data_(data), size_(size) {}
    Span(std::vector<std::remove_const_t<T>> &values) : Span(values.data(), values.size()) {}
    template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
    Span(const std::vector<std::remove_const_t<T>> &values)
        : Span(values.data(), values.size()) {}

    T *data() const { return data_; }
    std::size_t size() const { return size_; }
    T &operator[](std::size_t i) const { return data_[i]; }
    T *begin() const { return data_; }
    T *end() const { return data_ + size_; }

  private:
    T *data_;
    std::size_t size_;
};

struct Result {
    float score = 0;
    double threshold = 0;
    bool is_anomalous = false;
    stpm_verdict verdict = STPM_VERDICT_OK;
    std::vector<float> map;            // Detector::info().map_height rows of map_width
    std::vector<stpm_region> regions;  // highest peak first
    std::vector<stpm_roi> rois;        // regions of interest; names are valid while the detector lives
};

// Views an 8- or 16-bit cv::Mat, or a type with the same members, without a copy. Three channels
// are taken as BGR, OpenCV's own order; pass a format for any other.
template <class Mat>
stpm_image view(const Mat &mat) {
    constexpr int unsigned8 = 0, unsigned16 = 2;  // CV_8U and CV_16U
    const int channels = mat.channels();
    const int depth = mat.depth();
    if ((depth != unsigned8 && depth != unsigned16) ||
        (channels != 1 && channels != 3 && channels != 4)) {
        throw Error(STPM_ERROR_IMAGE, "got a cv::Mat that is not CV_8U or CV_16U with 1, 3 or 4 "
                                      "channels; convert it.");
    }
    const int format = channels == 1 ? STPM_GREY : channels == 3 ? STPM_BGR : STPM_BGRA;
    return {mat.data, mat.rows, mat.cols, static_cast<std::ptrdiff_t>(std::size_t{mat.step}),
            depth == unsigned16 ? format + STPM_GREY16 : format};
}

template <class Mat>
stpm_image view(const Mat &mat, stpm_format format) {
    stpm_image image = view(mat);
    if ((image.format >= STPM_GREY16) != (format >= STPM_GREY16)) {
        throw Error(STPM_ERROR_IMAGE, "got a cv::Mat whose depth is not the format's; pass a "
                                      "format of the same depth.");
    }
    image.format = format;
    return image;
}

// A bundle, ready to score; threads may share one. Moving is allowed, copying is not.
class Detector {
  public:
    explicit Detector(const std::string &path) : Detector(path, stpm_options{}) {}

    // struct_size of the options is set here.
    Detector(const std::string &path, stpm_options options) {
        options.struct_size = sizeof options;
        stpm_detector *opened = nullptr;
        const stpm_status status = stpm_open(path.c_str(), &options, &opened);
        detector_.reset(opened);
        check(status);
        info_.struct_size = sizeof info_;
        check(stpm_get_info(opened, &info_));
    }

    const stpm_info &info() const { return info_; }

    Result operator()(const stpm_image &image) const {
        return std::move(batch({&image, 1}).front());
    }

    // Scores several images in one call.
    std::vector<Result> batch(Span<const stpm_image> images) const {
        std::vector<Result> results(images.size());
        std::vector<stpm_result> raw;
        for (Result &result : results) raw.push_back(prepare(result));
        check(stpm_run(detector_.get(), images.data(), images.size(), raw.data()));
        for (std::size_t i = 0; i < raw.size(); ++i) finish(raw[i], results[i]);
        return results;
    }

    // See stpm_submit; throws an Error of STPM_ERROR_TIMEOUT when the queue stays full.
    std::uint64_t submit(const stpm_image &image, std::int32_t timeout_ms = -1) const {
        std::uint64_t ticket = 0;
        check(stpm_submit(detector_.get(), &image, timeout_ms, &ticket));
        return ticket;
    }

    // See stpm_wait; throws an Error of STPM_ERROR_TIMEOUT when the result is not ready.
    Result wait(std::uint64_t ticket, std::int32_t timeout_ms = -1) const {
        Result result;
        stpm_result raw = prepare(result);
        check(stpm_wait(detector_.get(), ticket, timeout_ms, &raw));
        finish(raw, result);
        return result;
    }

    // See stpm_hash_image.
    std::string hash(const stpm_image &image) const {
        char digits[STPM_SHA256_SIZE] = {};
        check(stpm_hash_image(detector_.get(), &image, digits));
        return digits;
    }

  private:
    friend class Drift;

    struct Close {
        void operator()(stpm_detector *detector) const { stpm_close(detector); }
    };

    void check(stpm_status status) const {
        if (status != STPM_OK) throw Error(status, stpm_last_error(detector_.get()));
    }

    // Room for every region that a map can have: a quarter of its pixels, rounded up.
    stpm_result prepare(Result &result) const {
        const auto height = static_cast<std::size_t>(info_.map_height);
        const auto width = static_cast<std::size_t>(info_.map_width);
        result.map.resize(height * width);
        result.regions.resize(((height + 1) / 2) * ((width + 1) / 2));
        result.rois.resize(static_cast<std::size_t>(info_.roi_count));
        stpm_result raw = {};
        raw.map = result.map.data();
        raw.map_capacity = result.map.size();
        raw.regions = result.regions.data();
        raw.region_capacity = result.regions.size();
        raw.rois = result.rois.data();
        raw.roi_capacity = result.rois.size();
        return raw;
    }

    void finish(const stpm_result &raw, Result &result) const {
        std::int32_t verdict = STPM_VERDICT_OK;
        check(stpm_judge(detector_.get(), raw.score, &verdict));
        result.verdict = static_cast<stpm_verdict>(verdict);
        result.score = raw.score;
        result.threshold = raw.threshold;
        result.is_anomalous = raw.is_anomalous != 0;
        result.regions.resize(raw.region_count);
        result.regions.shrink_to_fit();
    }

    std::unique_ptr<stpm_detector, Close> detector_;
    stpm_info info_ = {};
};

// Tests whether scores, light or focus of one camera have changed; see stpm_drift_open. It is used by
// one thread at a time, and lives no longer than its detector.
class Drift {
  public:
    explicit Drift(const Detector &detector, double level = 1e-3) : detector_(detector) {
        stpm_drift *opened = nullptr;
        detector_.check(stpm_drift_open(detector_.detector_.get(), level, &opened));
        drift_.reset(opened);
    }

    stpm_drift_state update(const stpm_image &image, float score) {
        stpm_drift_state state = {};
        detector_.check(stpm_drift_update(drift_.get(), &image, score, &state));
        return state;
    }

  private:
    struct Close {
        void operator()(stpm_drift *drift) const { stpm_drift_close(drift); }
    };

    const Detector &detector_;
    std::unique_ptr<stpm_drift, Close> drift_;
};

// See stpm_hash_bytes.
inline std::string hash(const std::string &bytes) {
    char digits[STPM_SHA256_SIZE] = {};
    const stpm_status status = stpm_hash_bytes(bytes.data(), bytes.size(), digits);
    if (status != STPM_OK) throw Error(status, stpm_status_string(status));
    return digits;
}

}  // namespace stpm
