// stpm.hpp sees a cv::Mat as the image that it is: test_view GOLDEN
#include "check.hpp"
#include "stpm.hpp"

namespace {

// The members of cv::Mat that `view` reads.
struct Mat {
    std::uint8_t *data;
    int rows, cols;
    std::size_t step;
    int depth_, channels_;

    int depth() const { return depth_; }
    int channels() const { return channels_; }
};

template <class View>
bool is_refused(const View &view) {
    try {
        view();
    } catch (const stpm::Error &error) {
        return error.status() == STPM_ERROR_IMAGE;
    }
    return false;
}

}  // namespace

int main() {
    constexpr int kUnsigned8 = 0, kUnsigned16 = 2;  // CV_8U, CV_16U
    std::uint8_t pixels[64] = {};
    const struct {
        int depth, channels, format;
    } cases[] = {{kUnsigned8, 1, STPM_GREY},    {kUnsigned8, 3, STPM_BGR},
                 {kUnsigned8, 4, STPM_BGRA},    {kUnsigned16, 1, STPM_GREY16},
                 {kUnsigned16, 3, STPM_BGR16},  {kUnsigned16, 4, STPM_BGRA16}};
    for (const auto &each : cases) {
        const stpm_image image = stpm::view(Mat{pixels, 2, 3, 32, each.depth, each.channels});
        CHECK(image.pixels == pixels && image.height == 2 && image.width == 3);
        CHECK(image.stride == 32 && image.format == each.format);
    }
    const Mat deep = {pixels, 2, 3, 32, kUnsigned16, 3};
    CHECK(stpm::view(deep, STPM_RGB16).format == STPM_RGB16);
    CHECK(is_refused([&] { stpm::view(deep, STPM_RGB); }));
    CHECK(is_refused([&] { stpm::view(Mat{pixels, 2, 3, 32, 5, 3}); }));  // CV_32F
    CHECK(is_refused([&] { stpm::view(Mat{pixels, 2, 3, 32, kUnsigned8, 2}); }));
}
