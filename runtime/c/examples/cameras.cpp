// Several cameras share one detector and one record: cameras BUNDLE RECORD FRAMES SOURCE...
// A SOURCE is what cv::VideoCapture opens: a number, a file, a pattern as shot%03d.png, a URL.
// Each camera has a thread that grabs and submits, and one that waits for the results, records them
// and looks for drift; a full queue holds the grabbing back instead of filling the memory.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <exception>
#include <mutex>
#include <opencv2/videoio.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <stpm.hpp>

#include "camera.hpp"

namespace {

struct Submitted {
    std::uint64_t ticket;
    int number;
    Record::Clock::time_point taken;
    cv::Mat frame;
};

// In the order of the frames; none marks the end.
class Queue {
  public:
    void push(std::optional<Submitted> one) {
        {
            const std::lock_guard lock(mutex_);
            waiting_.push_back(std::move(one));
        }
        changed_.notify_one();
    }

    std::optional<Submitted> pop() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !waiting_.empty(); });
        auto one = std::move(waiting_.front());
        waiting_.pop_front();
        return one;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::optional<Submitted>> waiting_;
};

// Set when verdicts cannot be recorded any more.
std::atomic<bool> has_failed = false;

void grab(const stpm::Detector &detector, const std::string &source, int frames, Queue &queue) {
    const bool is_number = source.find_first_not_of("0123456789") == std::string::npos;
    cv::VideoCapture camera;
    const bool opened = is_number ? camera.open(std::stoi(source)) : camera.open(source);
    if (!opened) std::fprintf(stderr, "%s: cannot be opened\n", source.c_str());
    try {
        for (int number = 1; number <= frames && !has_failed; ++number) {
            cv::Mat frame;  // of its own: the last one may still be waited for
            if (!camera.read(frame)) break;
            const auto taken = Record::Clock::now();
            const std::uint64_t ticket = detector.submit(stpm::view(frame));
            queue.push(Submitted{ticket, number, taken, frame});
        }
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s: %s\n", source.c_str(), error.what());
    }
    queue.push(std::nullopt);
}

void decide(const stpm::Detector &detector, Camera &camera, const std::string &source,
            const Submitted &one) {
    const std::string name = source + "#" + std::to_string(one.number);
    stpm::Result result;
    try {
        result = detector.wait(one.ticket);
    } catch (const std::exception &error) {
        return camera.tell_error(name, one.taken, error.what());
    }
    camera.tell(name, one.taken, stpm::view(one.frame), result);
}

void decide_all(const stpm::Detector &detector, Camera &camera, const std::string &source,
                Queue &queue) {
    while (const auto one = queue.pop()) {
        try {
            if (has_failed) detector.wait(one->ticket);  // its place in the detector's queue
            if (!has_failed) decide(detector, camera, source, *one);
        } catch (const std::exception &error) {
            std::fprintf(stderr, "error: %s\n", error.what());
            has_failed = true;
        }
    }
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 5) {
        return std::fprintf(stderr, "usage: cameras BUNDLE RECORD FRAMES SOURCE...\n"), 2;
    }
    const stpm::Detector detector(argv[1]);
    const std::string bundle = bundle_hash(argv[1]);
    Record record(argv[2]);
    const int frames = std::stoi(argv[3]);
    const std::vector<std::string> sources(argv + 4, argv + argc);
    std::deque<Camera> cameras;
    std::vector<Queue> queues(sources.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 1; i <= sources.size(); ++i) {
        cameras.emplace_back(detector, record, "camera" + std::to_string(i), bundle);
    }
    for (std::size_t i = 0; i < sources.size(); ++i) {
        threads.emplace_back([&, i] { grab(detector, sources[i], frames, queues[i]); });
        threads.emplace_back(
            [&, i] { decide_all(detector, cameras[i], sources[i], queues[i]); });
    }
    for (std::thread &thread : threads) thread.join();
    return has_failed ? 1 : 0;
} catch (const std::exception &error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
}
