// Calls, statuses, batches and the queue, with the engine of the tests: test_api GOLDEN
#include <algorithm>
#include <cmath>
#include <thread>

#ifndef _WIN32
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.hpp"
#include "fake_engine.hpp"

namespace {

constexpr int kHeight = 24, kWidth = 32;
constexpr std::size_t kMap = 12 * 16;

// An image of the input's size whose red values are known: nothing resizes it.
struct Picture {
    explicit Picture(std::uint32_t seed) : pixels(noise(kHeight * kWidth * 3, seed)) {
        for (std::size_t y = 0; y < 12; ++y) {
            for (std::size_t x = 0; x < 16; ++x) {
                const float red = static_cast<float>(pixels[(2 * y * kWidth + 2 * x) * 3]);
                map.push_back(red / 255.0F);
            }
        }
        score = *std::max_element(map.begin(), map.end());
    }

    stpm_image image() const { return {pixels.data(), kHeight, kWidth, 0, STPM_RGB}; }

    std::vector<std::uint8_t> pixels;
    std::vector<float> map;
    float score = 0;
};

void scores_and_maps(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    for (std::size_t count = 1; count <= 9; ++count) {
        std::vector<Picture> pictures;
        std::vector<stpm_image> images;
        std::vector<std::vector<float>> maps(count, std::vector<float>(kMap));
        std::vector<stpm_result> results(count);
        for (std::size_t i = 0; i < count; ++i) {
            pictures.emplace_back(static_cast<std::uint32_t>(i));
            results[i] = {maps[i].data(), kMap, nullptr, 0, 0, 0, 0, 0, nullptr, 0, 0};
        }
        for (const Picture &picture : pictures) images.push_back(picture.image());
        CHECK_STATUS(STPM_OK, detector,
                     stpm_run(detector, images.data(), count, results.data()));
        for (std::size_t i = 0; i < count; ++i) {
            CHECK(maps[i] == pictures[i].map);
            CHECK(results[i].score == pictures[i].score);
            CHECK(results[i].threshold == 1.5);
            CHECK(results[i].is_anomalous == 0);
            CHECK(results[i].region_count > 0);
        }
    }
    stpm_close(detector);
}

void describes_itself(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle, "onnxruntime");
    const stpm_info info = info_of(detector);
    CHECK(std::strcmp(info.name, "batch") == 0 && std::strcmp(info.engine, "onnxruntime") == 0);
    CHECK(std::strcmp(info.precision, "fp32") == 0);
    CHECK(info.input_height == kHeight && info.input_width == kWidth && info.resizes == 1);
    CHECK(info.map_height == 12 && info.map_width == 16);
    CHECK(info.smallest_batch == 1 && info.largest_batch == 4);
    CHECK(info.threshold == 1.5 && info.pixel_threshold == 0.5);
    stpm_close(detector);
}

void refuses_wrong_arguments(const std::string &bundle) {
    CHECK(stpm_open(bundle.c_str(), nullptr, nullptr) == STPM_ERROR_ARGUMENT);
    CHECK(stpm_close(nullptr) == STPM_OK);
    CHECK(stpm_run(nullptr, nullptr, 0, nullptr) == STPM_ERROR_ARGUMENT);
    CHECK(std::strlen(stpm_last_error(nullptr)) > 0);
    CHECK(stpm_api_version() == STPM_API_VERSION);
    for (int status = STPM_OK; status <= STPM_ERROR_INTERNAL; ++status) {
        CHECK(std::strcmp(stpm_status_string(static_cast<stpm_status>(status)),
                          "unknown status") != 0);
    }

    const auto refused = [&](const char *path, const stpm_options *options, const char *word,
                             stpm_status expected) {
        stpm_detector *detector = nullptr;
        CHECK_STATUS(expected, detector, stpm_open(path, options, &detector));
        CHECK(std::strstr(stpm_last_error(detector), word) != nullptr);
        stpm_close(detector);
    };
    refused(nullptr, nullptr, "path is NULL", STPM_ERROR_ARGUMENT);
    stpm_options options = {};
    refused(bundle.c_str(), &options, "struct_size", STPM_ERROR_ARGUMENT);
    options.struct_size = sizeof options;
    options.threads = -1;
    refused(bundle.c_str(), &options, "threads", STPM_ERROR_ARGUMENT);
    options.threads = 0;
    options.queue = 1025;
    refused(bundle.c_str(), &options, "queue", STPM_ERROR_ARGUMENT);
    options.queue = 0;
    options.engine = "tensorrt";
    refused(bundle.c_str(), &options, "expected one of this build", STPM_ERROR_ENGINE);
    options.engine = "openvino";
    refused(bundle.c_str(), &options, "has no threshold for the engine", STPM_ERROR_ENGINE);
    options.engine = nullptr;
    struct {
        stpm_options known;
        std::int64_t surplus;  // fills the struct: padding would have any value
    } later = {options, 1};
    later.known.struct_size = sizeof later;
    refused(bundle.c_str(), &later.known, "does not know", STPM_ERROR_ARGUMENT);
    later.surplus = 0;
    stpm_detector *detector = nullptr;
    CHECK_STATUS(STPM_OK, detector, stpm_open(bundle.c_str(), &later.known, &detector));
    stpm_close(detector);
}

void refuses_what_does_not_fit(const std::string &bundle, const std::string &camera) {
    stpm_detector *detector = open_detector(bundle);
    const Picture picture(0);
    stpm_image image = picture.image();
    stpm_result result = {};
    const auto refused = [&](stpm_status expected, const char *word) {
        CHECK_STATUS(expected, detector, stpm_run(detector, &image, 1, &result));
        CHECK(std::strstr(stpm_last_error(detector), word) != nullptr);
        std::uint64_t ticket = 0;
        if (expected == STPM_ERROR_IMAGE) {
            CHECK_STATUS(expected, detector, stpm_submit(detector, &image, -1, &ticket));
        }
    };
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, nullptr, 0, nullptr));
    CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_run(detector, nullptr, 1, &result));
    CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_run(detector, &image, 1, nullptr));
    for (const int side : {0, -1, INT32_MIN, (1 << 20) + 1}) {
        image.height = side;
        refused(STPM_ERROR_IMAGE, "expected sides of 1 to");
        image.height = kHeight;
        image.width = side;
        refused(STPM_ERROR_IMAGE, "expected sides of 1 to");
        image.width = kWidth;
    }
    for (const std::ptrdiff_t stride : {1, -1, kWidth * 3 - 1, 1 - kWidth * 3}) {
        image.stride = stride;
        refused(STPM_ERROR_IMAGE, "stride");
    }
    image.stride = 0;
    for (const int format : {-1, 10}) {
        image.format = format;
        refused(STPM_ERROR_IMAGE, "format");
    }
    image.format = STPM_RGB;
    image.pixels = nullptr;
    refused(STPM_ERROR_IMAGE, "NULL");
    image = picture.image();
    std::vector<float> map(kMap);
    result.map = map.data();
    result.map_capacity = kMap - 1;
    refused(STPM_ERROR_BUFFER, "191 values of the map, expected 192");
    result = {};
    result.region_capacity = 1;
    refused(STPM_ERROR_ARGUMENT, "no regions");
    stpm_close(detector);

    detector = open_detector(camera);
    result = {};
    image.height = kHeight - 1;
    refused(STPM_ERROR_IMAGE, "for which the bundle was exported");
    image.height = kHeight;
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    stpm_close(detector);
}

// The bundle's camera has 12 bits.
void samples_of_16_bits_have_the_bit_depth(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    std::vector<std::uint16_t> grey(kHeight * kWidth, 4095);
    const stpm_image image = {reinterpret_cast<const std::uint8_t *>(grey.data()), kHeight, kWidth,
                              0, STPM_GREY16};
    stpm_result result = {};
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    CHECK(result.score == 1);  // the engine's map is the red channel over 255
    grey.back() = 4096;
    const char *sentence = "got a value of 4096 from a camera of 12 bits, expected at most 4095";
    CHECK_STATUS(STPM_ERROR_IMAGE, detector, stpm_run(detector, &image, 1, &result));
    CHECK(std::strstr(stpm_last_error(detector), sentence) != nullptr);
    std::uint64_t ticket = 0;
    CHECK_STATUS(STPM_ERROR_IMAGE, detector, stpm_submit(detector, &image, -1, &ticket));
    CHECK(std::strstr(stpm_last_error(detector), sentence) != nullptr);
    grey.back() = 0;
    CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, 0, &ticket));
    CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, ticket, -1, &result));
    stpm_close(detector);
}

void regions_are_cut_to_the_buffer(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    const Picture picture(3);
    const stpm_image image = picture.image();
    stpm_region all[64], one[1];
    stpm_result result = {nullptr, 0, all, 64, 0, 0, 0, 0, nullptr, 0, 0};
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    const std::size_t count = result.region_count;
    CHECK(count > 1 && count <= 64);
    CHECK(std::is_sorted(all, all + count, [](const stpm_region &a, const stpm_region &b) {
        return a.peak > b.peak;
    }));
    CHECK(all[0].peak == picture.score);
    result = {nullptr, 0, one, 1, 0, 0, 0, 0, nullptr, 0, 0};
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    CHECK(result.region_count == count && one[0].peak == all[0].peak);
    stpm_close(detector);
}

void golden_images_are_replayed(const std::string &folder) {
    for (const char *name : {"single", "batch", "pairs", "camera"}) {
        for (const char *damage : {"_drifted", "_nan"}) {
            stpm_detector *detector = nullptr;
            const std::string path = folder + name + damage + ".stpm";
            CHECK_STATUS(STPM_ERROR_PARITY, detector,
                         stpm_open(path.c_str(), nullptr, &detector));
            CHECK(std::strstr(stpm_last_error(detector), "golden") != nullptr);
            stpm_close(detector);
        }
    }
}

void faults_become_statuses(const std::string &bundle) {
    const Picture picture(0);
    const stpm_image image = picture.image();
    const struct {
        Fault fault;
        stpm_status status;
        const char *word;
    } cases[] = {{Fault::error, STPM_ERROR_ENGINE, "the fake engine failed"},
                 {Fault::memory, STPM_ERROR_MEMORY, "out of memory"},
                 {Fault::no_exception, STPM_ERROR_INTERNAL, "not an exception"},
                 {Fault::not_finite, STPM_ERROR_ENGINE, "not finite"}};
    stpm_detector *detector = open_detector(bundle);
    for (const auto &each : cases) {
        stpm_result result = {};
        std::uint64_t ticket = 0;
        fault = each.fault;
        CHECK_STATUS(each.status, detector, stpm_run(detector, &image, 1, &result));
        CHECK(std::strstr(stpm_last_error(detector), each.word) != nullptr);
        CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, -1, &ticket));
        CHECK_STATUS(each.status, detector, stpm_wait(detector, ticket, -1, &result));
        stpm_detector *other = nullptr;
        CHECK_STATUS(each.status, other, stpm_open(bundle.c_str(), nullptr, &other));
        stpm_close(other);
        fault = Fault::none;
        CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
        CHECK(result.score == picture.score);
    }
    stpm_close(detector);
}

void queue_holds_back(const std::string &bundle) {
    stpm_options options = {};
    options.struct_size = sizeof options;
    options.queue = 3;
    stpm_detector *detector = nullptr;
    CHECK_STATUS(STPM_OK, detector, stpm_open(bundle.c_str(), &options, &detector));
    const Picture pictures[] = {Picture(0), Picture(1), Picture(2), Picture(3)};
    std::uint64_t tickets[4] = {};
    stpm_result result = {};
    delay_ms = 50;
    for (int i = 0; i < 3; ++i) {
        const stpm_image image = pictures[i].image();
        CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, 0, &tickets[i]));
    }
    CHECK_STATUS(STPM_ERROR_TIMEOUT, detector, stpm_wait(detector, tickets[2], 0, &result));
    const stpm_image last = pictures[3].image();
    for (const int timeout : {0, 5}) {
        CHECK_STATUS(STPM_ERROR_TIMEOUT, detector,
                     stpm_submit(detector, &last, timeout, &tickets[3]));
    }
    std::vector<float> map(kMap);
    stpm_result small = {map.data(), 1, nullptr, 0, 0, 0, 0, 0, nullptr, 0, 0};
    CHECK_STATUS(STPM_ERROR_BUFFER, detector, stpm_wait(detector, tickets[2], -1, &small));
    small.map_capacity = kMap;
    CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, tickets[2], -1, &small));
    CHECK(map == pictures[2].map && small.score == pictures[2].score);
    CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_wait(detector, tickets[2], -1, &result));
    CHECK(std::strstr(stpm_last_error(detector), "used up") != nullptr);
    CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_wait(detector, 99, -1, &result));
    CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &last, 0, &tickets[3]));
    for (const int i : {3, 0, 1}) {
        CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, tickets[i], -1, &result));
        CHECK(result.score == pictures[i].score);
    }
    // What is not waited for is dropped.
    for (int i = 0; i < 3; ++i) {
        const stpm_image image = pictures[i].image();
        CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, 0, &tickets[i]));
    }
    stpm_close(detector);
    delay_ms = 0;
}

void queue_scores_together(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    const Picture picture(0);
    const stpm_image image = picture.image();
    std::uint64_t tickets[8];
    stpm_result result = {};
    delay_ms = 50;
    const int before = run_count;
    for (std::uint64_t &ticket : tickets) {
        CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, 0, &ticket));
    }
    for (const std::uint64_t ticket : tickets) {
        CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, ticket, -1, &result));
    }
    delay_ms = 0;
    CHECK(run_count - before < 8);
    stpm_close(detector);
}

void messages_belong_to_threads(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_run(detector, nullptr, 1, nullptr));
    const std::string message = stpm_last_error(detector);
    std::thread([&] {
        CHECK(std::strlen(stpm_last_error(detector)) == 0);
        stpm_result result = {};
        CHECK_STATUS(STPM_ERROR_ARGUMENT, detector, stpm_wait(detector, 5, 0, &result));
    }).join();
    CHECK(message == stpm_last_error(detector));
    stpm_close(detector);
}

#ifndef _WIN32
// Also where the parent's detector has a thread for its queue.
void a_forked_child_is_refused(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    const Picture picture(0);
    const stpm_image image = picture.image();
    stpm_result result = {};
    std::uint64_t ticket = 0;
    CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &image, -1, &ticket));
    CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, ticket, -1, &result));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(30);  // instead of waiting without end
        CHECK_STATUS(STPM_ERROR_ENGINE, detector, stpm_run(detector, &image, 1, &result));
        CHECK(std::strstr(stpm_last_error(detector), "stpm_open in each child") != nullptr);
        CHECK_STATUS(STPM_ERROR_ENGINE, detector, stpm_submit(detector, &image, -1, &ticket));
        CHECK(stpm_close(detector) == STPM_OK);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_STATUS(STPM_OK, detector, stpm_run(detector, &image, 1, &result));
    stpm_close(detector);
}
#endif

}  // namespace

int main(int, char **argv) {
    const std::string fakes = std::string(argv[1]) + "/fake/";
    for (const char *name : {"single", "batch", "pairs", "camera", "deep"}) {
        scores_and_maps(fakes + name + ".stpm");
    }
    describes_itself(fakes + "batch.stpm");
    refuses_wrong_arguments(fakes + "single.stpm");
    refuses_what_does_not_fit(fakes + "batch.stpm", fakes + "camera.stpm");
    samples_of_16_bits_have_the_bit_depth(fakes + "deep.stpm");
    regions_are_cut_to_the_buffer(fakes + "single.stpm");
    golden_images_are_replayed(fakes);
    faults_become_statuses(fakes + "pairs.stpm");
    queue_holds_back(fakes + "single.stpm");
    queue_scores_together(fakes + "batch.stpm");
    messages_belong_to_threads(fakes + "single.stpm");
#ifndef _WIN32
    a_forked_child_is_refused(fakes + "single.stpm");
#endif
}
