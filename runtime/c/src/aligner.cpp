#include "aligner.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/video/tracking.hpp>
#include <utility>

#include "error.hpp"

namespace stpm::core {
namespace {

constexpr double kCoarse = 64;           // pixels of the coarse search's longer side, at most
constexpr double kStep = 3;              // degrees from one turn to the next, at most
constexpr double kFlat = 2;              // grey levels of deviation; less shows nothing
constexpr int kBlur = 5, kIterations = 100;
constexpr double kGain = 1e-5;           // of correlation; less ends the search
constexpr double kMostLevels = 2, kMostCorrelation = 0.02;  // apart of a golden part
constexpr int kBackwards = cv::INTER_LINEAR | cv::WARP_INVERSE_MAP;

cv::Size cv_size(Size size) { return {size.width, size.height}; }

cv::Point2d centre(Size size) { return {(size.width - 1) / 2.0, (size.height - 1) / 2.0}; }

// Turns about a centre, and shifts.
cv::Matx23d rigid(double degrees, cv::Point2d shift, cv::Point2d about) {
    const double c = std::cos(degrees * CV_PI / 180), s = std::sin(degrees * CV_PI / 180);
    return {c, -s, about.x + shift.x - (c * about.x - s * about.y),
            s, c,  about.y + shift.y - (s * about.x + c * about.y)};
}

cv::Matx23d product(const cv::Matx23d &a, const cv::Matx23d &b) {
    const cv::Matx33d tall(b(0, 0), b(0, 1), b(0, 2), b(1, 0), b(1, 1), b(1, 2), 0, 0, 1);
    return a * tall;
}

// The matrix for pictures of another size, whose pixels have their centres at 0.
cv::Matx23d at(const Placement &placement, Size size) {
    const auto &m = placement.matrix;
    const double x = static_cast<double>(size.width) / placement.size.width;
    const double y = static_cast<double>(size.height) / placement.size.height;
    const double a = m[0], b = m[1] * x / y, c = m[3] * y / x, d = m[4];
    return {a, b, (m[2] + 0.5 - (m[0] + m[1]) / 2) * x - 0.5 + (a + b) / 2,
            c, d, (m[5] + 0.5 - (m[3] + m[4]) / 2) * y - 0.5 + (c + d) / 2};
}

cv::Mat to_reference(const Placement &placement, const cv::Mat &image) {
    cv::Mat aligned;
    cv::warpAffine(image, aligned, at(placement, {image.rows, image.cols}), image.size(),
                   kBackwards, cv::BORDER_REPLICATE);
    return aligned;
}

cv::Mat reduced(const cv::Mat &picture, Size size) {
    cv::Mat small;
    cv::resize(picture, small, cv_size(size), 0, 0, cv::INTER_AREA);
    return small;
}

bool is_flat(const cv::Mat &picture) {
    cv::Scalar mean, deviation;
    cv::meanStdDev(picture, mean, deviation);
    return deviation[0] < kFlat;
}

class OpenCvAligner : public Aligner {
  public:
    OpenCvAligner(const Alignment &limits, const Bytes &reference)
        : limits_(limits),
          size_(limits.working_size()),
          coarse_(within(size_, kCoarse)),
          margin_(static_cast<int>(
              std::ceil(limits.shift * std::max(coarse_.height, coarse_.width)))),
          bytes_(reference),
          reference_(size_.height, size_.width, CV_8UC1, bytes_.data()) {
        const cv::Mat small = reduced(reference_, coarse_);
        const int steps = static_cast<int>(std::ceil(limits_.degrees / kStep));
        for (int k = -steps; k <= steps; ++k) {
            const double degrees = limits_.degrees * k / std::max(1, steps);
            cv::Mat turned;
            cv::warpAffine(small, turned, rigid(degrees, {}, centre(coarse_)), small.size(),
                           cv::INTER_LINEAR, cv::BORDER_REPLICATE);
            turned_.emplace_back(degrees, turned);
        }
    }

    Placement align(std::uint8_t *image, Size size, int channels) const override {
        cv::Mat input(size.height, size.width, CV_8UC(channels), image);
        cv::Mat grey = input;
        if (channels == 3) cv::cvtColor(input, grey, cv::COLOR_RGB2GRAY);
        const Placement found = place(reduced(grey, size_));
        if (found.is_found) to_reference(found, input).copyTo(input);
        return found;
    }

    Placement place(const cv::Mat &picture) const {
        if (is_flat(picture)) return {};
        const cv::Matx23d close = near(picture);
        const cv::Size size = cv_size(size_);
        cv::Mat turned, seen;
        cv::warpAffine(picture, turned, close, size, kBackwards, cv::BORDER_REPLICATE);
        cv::warpAffine(cv::Mat(size, CV_8UC1, cv::Scalar(255)), seen, close, size,
                       cv::INTER_NEAREST | cv::WARP_INVERSE_MAP);
        cv::Mat rest = cv::Mat::eye(2, 3, CV_32F);
        const int motion = limits_.degrees > 0 ? cv::MOTION_EUCLIDEAN : cv::MOTION_TRANSLATION;
        const cv::TermCriteria criteria(cv::TermCriteria::COUNT | cv::TermCriteria::EPS,
                                        kIterations, kGain);
        Placement found;
        try {
            found.correlation =
                cv::findTransformECC(reference_, turned, rest, motion, criteria, seen, kBlur);
        } catch (const cv::Exception &error) {
            if (error.code == cv::Error::StsNoConv) return {};
            throw;
        }
        cv::Mat fine;
        rest.convertTo(fine, CV_64F);
        const cv::Matx23d matrix = product(close, cv::Matx23d(fine.ptr<double>()));
        std::copy_n(matrix.val, found.matrix.size(), found.matrix.begin());
        found.size = size_;
        found.is_found = is_within(found);
        return found;
    }

  private:
    bool is_within(const Placement &found) const {
        const auto &m = found.matrix;
        const cv::Point2d c = centre(size_);
        const double shift = std::hypot(m[0] * c.x + m[1] * c.y + m[2] - c.x,
                                        m[3] * c.x + m[4] * c.y + m[5] - c.y);
        const double degrees = std::abs(std::atan2(m[3], m[0])) * 180 / CV_PI;
        return found.correlation >= limits_.correlation && degrees <= limits_.degrees &&
               shift <= limits_.shift * std::max(size_.height, size_.width);
    }

    // Searches for the turned references; returns the matrix of the best.
    cv::Matx23d near(const cv::Mat &picture) const {
        cv::Mat wide, matches;
        cv::copyMakeBorder(reduced(picture, coarse_), wide, margin_, margin_, margin_, margin_,
                           cv::BORDER_REPLICATE);
        double best = -std::numeric_limits<double>::infinity(), turn = 0;
        cv::Point place;
        for (const auto &[degrees, turned] : turned_) {
            cv::matchTemplate(wide, turned, matches, cv::TM_CCOEFF_NORMED);
            double highest = 0;
            cv::Point where;
            cv::minMaxLoc(matches, nullptr, &highest, nullptr, &where);
            if (highest > best) {
                best = highest;
                turn = degrees;
                place = where;
            }
        }
        const cv::Point2d shift(
            static_cast<double>(place.x - margin_) * size_.width / coarse_.width,
            static_cast<double>(place.y - margin_) * size_.height / coarse_.height);
        return rigid(turn, shift, centre(size_));
    }

    Alignment limits_;
    Size size_, coarse_;
    int margin_;
    Bytes bytes_;
    cv::Mat reference_;  // a view of them
    std::vector<std::pair<double, cv::Mat>> turned_;
};

}  // namespace

void to_camera(const Placement &placement, const float *map, const Bytes &labels, Size size,
               std::vector<float> &seen_map, Bytes &seen_labels) {
    seen_map.resize(size.pixels());
    seen_labels.resize(size.pixels());
    const cv::Matx23d matrix = at(placement, size);
    // OpenCV takes what it only reads by a pointer that could write.
    const cv::Mat from_map(size.height, size.width, CV_32FC1, const_cast<float *>(map));
    const cv::Mat from_labels(size.height, size.width, CV_8UC1,
                              const_cast<std::uint8_t *>(labels.data()));
    cv::Mat to_map(size.height, size.width, CV_32FC1, seen_map.data());
    cv::Mat to_labels(size.height, size.width, CV_8UC1, seen_labels.data());
    cv::warpAffine(from_map, to_map, matrix, to_map.size(), cv::INTER_LINEAR);
    cv::warpAffine(from_labels, to_labels, matrix, to_labels.size(), cv::INTER_NEAREST);
}

std::unique_ptr<Aligner> open_aligner(const Bundle &bundle) {
    const Reference kept = bundle.reference();
    const Size size = bundle.manifest().scoring.align.value().working_size();
    auto aligner = std::make_unique<OpenCvAligner>(*bundle.manifest().scoring.align, kept.picture);
    for (std::size_t i = 0; i < kept.correlations.size(); ++i) {
        const auto picture = [&](const Bytes &pictures) {
            const std::uint8_t *pixels = pictures.data() + i * size.pixels();
            return cv::Mat(size.height, size.width, CV_8UC1, const_cast<std::uint8_t *>(pixels));
        };
        const cv::Mat image = picture(kept.images);
        const Placement found = aligner->place(image);
        if (found.is_found) {
            const double levels = cv::norm(to_reference(found, image), picture(kept.aligned),
                                           cv::NORM_L1) / static_cast<double>(size.pixels());
            const auto expected = static_cast<double>(kept.correlations[i]);
            if (levels <= kMostLevels &&
                std::abs(found.correlation - expected) <= kMostCorrelation) {
                continue;
            }
        }
        throw Error(STPM_ERROR_PARITY,
                    bundle.path() + ": OpenCV brings a golden part elsewhere than it did at "
                                    "calibration; calibrate again on this machine with --align.");
    }
    return aligner;
}

}  // namespace stpm::core
