// Many threads share a detector: test_threads GOLDEN
#include <thread>

#include "check.hpp"

namespace {

constexpr int kThreads = 8, kRounds = 40;

float expected_score(stpm_detector *detector, const stpm_image &image) {
    stpm_result result = {};
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    return result.score;
}

// Half of the threads run, half go through the queue, and all of them also fail.
void work(stpm_detector *detector, int number, const stpm_image &image, float score) {
    std::vector<float> map(12 * 16);
    for (int round = 0; round < kRounds; ++round) {
        stpm_result result = {map.data(), map.size(), nullptr, 0, 0, 0, 0, 0, nullptr, 0, 0};
        if (number % 2) {
            CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
        } else {
            std::uint64_t ticket = 0;
            CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, -1, &ticket));
            stpm_status status = STPM_ERROR_TIMEOUT;
            while (status == STPM_ERROR_TIMEOUT) {
                status = stpm_wait(detector, ticket, number == 0 ? -1 : 1, &result);
            }
            CHECK_STATUS(STPM_OK, detector, status);
        }
        CHECK(result.score == score);
        CHECK(stpm_wait(detector, UINT64_MAX, 0, &result) == STPM_ERROR_ARGUMENT);
        CHECK(std::strstr(stpm_last_error(detector), "never given") != nullptr);
        info_of(detector);
    }
}

}  // namespace

int main(int, char **argv) {
    const std::string fakes = std::string(argv[1]) + "/fake/";
    for (const char *name : {"single", "batch", "pairs"}) {
        stpm_options options = {};
        options.struct_size = sizeof options;
        options.queue = 2;
        stpm_detector *detector = nullptr;
        const std::string path = fakes + name + ".stpm";
        CHECK_STATUS(STPM_OK, detector, stpm_open(path.c_str(), &options, &detector));
        std::vector<std::vector<std::uint8_t>> pixels;
        std::vector<stpm_image> images;
        for (int i = 0; i < kThreads; ++i) {
            const int side = 20 + 7 * i;
            pixels.push_back(noise(static_cast<std::size_t>(side * side * 3),
                                   static_cast<std::uint32_t>(i)));
            images.push_back({pixels.back().data(), side, side, 0, STPM_BGR});
        }
        std::vector<std::thread> threads;
        for (int i = 0; i < kThreads; ++i) {
            const stpm_image &image = images[static_cast<std::size_t>(i)];
            const float score = expected_score(detector, image);
            threads.emplace_back([=] { work(detector, i, image, score); });
        }
        for (std::thread &thread : threads) thread.join();
        stpm_close(detector);
    }
}
