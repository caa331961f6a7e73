// No allocation after warm-up, and a status when one fails: test_memory GOLDEN
#include <atomic>
#include <new>

#include "check.hpp"

namespace {

std::atomic<long> allocations{0};
std::atomic<long> left{-1};  // until the next one fails; negative: never

void *allocate(std::size_t size) {
    ++allocations;
    if (left >= 0 && left-- == 0) return nullptr;
    return std::malloc(size ? size : 1);
}

}  // namespace

void *operator new(std::size_t size) {
    void *memory = allocate(size);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void *operator new(std::size_t size, const std::nothrow_t &) noexcept { return allocate(size); }
void *operator new[](std::size_t size) { return operator new(size); }
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory, std::size_t) noexcept { std::free(memory); }

namespace {

void hot_path_allocates_nothing(const std::string &bundle) {
    stpm_detector *detector = open_detector(bundle);
    std::vector<std::vector<std::uint8_t>> pixels;
    std::vector<stpm_image> images;
    for (int format = STPM_GREY; format <= STPM_BGRA16; ++format) {
        pixels.push_back(noise(100 * 80 * kChannels[format] * sample_bytes(format),
                               static_cast<std::uint32_t>(format)));
        images.push_back({pixels.back().data(), 100, 80, 0, format});
    }
    std::vector<float> maps(images.size() * 12 * 16);
    std::vector<stpm_region> regions(images.size() * 8);
    std::vector<stpm_result> results;
    for (std::size_t i = 0; i < images.size(); ++i) {
        results.push_back({&maps[i * 12 * 16], 12 * 16, &regions[i * 8], 8, 0, 0, 0, 0, nullptr, 0, 0});
    }
    long before = 0;
    for (int round = 0; round < 50; ++round) {
        if (round == 5) before = allocations;
        CHECK_STATUS(STPM_OK, detector,
                     stpm_run(detector, images.data(), images.size(), results.data()));
        std::uint64_t tickets[5];
        for (std::size_t i = 0; i < 5; ++i) {
            CHECK_STATUS(STPM_OK, detector, stpm_submit(detector, &images[i], -1, &tickets[i]));
        }
        for (std::size_t i = 0; i < 5; ++i) {
            CHECK_STATUS(STPM_OK, detector, stpm_wait(detector, tickets[i], -1, &results[i]));
        }
    }
    std::printf("%ld allocations while 450 images were scored after warm-up\n",
                allocations - before);
    CHECK(allocations == before);
    stpm_close(detector);
}

// Fails each allocation in turn, until none is left to fail.
template <class Call>
int fails_cleanly(const Call &call) {
    for (int number = 0;; ++number) {
        left = number;
        const stpm_status status = call();
        const bool all_done = left >= 0;
        left = -1;
        if (all_done) {
            CHECK(status == STPM_OK);
            return number;
        }
        CHECK(status == STPM_ERROR_MEMORY);
    }
}

void failed_allocations_become_statuses(const std::string &bundle) {
    const int opening = fails_cleanly([&] {
        stpm_detector *detector = nullptr;
        const stpm_status status = stpm_open(bundle.c_str(), nullptr, &detector);
        stpm_close(detector);
        return status;
    });
    const auto pixels = noise(50 * 50 * 3, 0);
    const stpm_image image = {pixels.data(), 50, 50, 0, STPM_RGB};
    stpm_result result = {};
    stpm_detector *detector = open_detector(bundle);
    const int running = fails_cleanly([&] { return stpm_run(detector, &image, 1, &result); });
    stpm_close(detector);
    const int queuing = fails_cleanly([&] {
        const long number = left.exchange(-1);
        stpm_detector *fresh = open_detector(bundle);
        left = number;
        std::uint64_t ticket = 0;
        stpm_status status = stpm_submit(fresh, &image, -1, &ticket);
        if (status == STPM_OK) status = stpm_wait(fresh, ticket, -1, &result);
        stpm_close(fresh);
        return status;
    });
    std::printf("%d allocations of opening, %d of the first run and %d of the first submit and wait "
                "failed cleanly\n", opening, running, queuing);
    CHECK(opening > 50 && running > 3 && queuing > 10);
}

}  // namespace

int main(int, char **argv) {
    const std::string fakes = std::string(argv[1]) + "/fake/";
    hot_path_allocates_nothing(fakes + "batch.stpm");
    hot_path_allocates_nothing(fakes + "pairs.stpm");
    failed_allocations_become_statuses(fakes + "batch.stpm");
}
