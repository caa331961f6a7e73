// Several cameras share one detector: cameras BUNDLE FRAMES SOURCE...
// A SOURCE is what cv::VideoCapture opens: a number, a file, a pattern as shot%03d.png, a URL.
// Each camera has a thread that grabs and submits, and one that waits for the results; a full
// queue holds the grabbing back instead of filling the memory.
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

namespace {

// Tickets in the order of the frames; none marks the end.
class Tickets {
  public:
    void push(std::optional<std::uint64_t> ticket) {
        {
            const std::lock_guard lock(mutex_);
            tickets_.push_back(ticket);
        }
        changed_.notify_one();
    }

    std::optional<std::uint64_t> pop() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return !tickets_.empty(); });
        const auto ticket = tickets_.front();
        tickets_.pop_front();
        return ticket;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::optional<std::uint64_t>> tickets_;
};

void grab(const stpm::Detector &detector, const std::string &source, int frames,
          Tickets &tickets) {
    const bool is_number = source.find_first_not_of("0123456789") == std::string::npos;
    cv::VideoCapture camera;
    const bool opened = is_number ? camera.open(std::stoi(source)) : camera.open(source);
    if (!opened) std::fprintf(stderr, "%s: cannot be opened\n", source.c_str());
    try {
        cv::Mat frame;
        for (int i = 0; i < frames && camera.read(frame); ++i) {
            tickets.push(detector.submit(stpm::view(frame)));
        }
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s: %s\n", source.c_str(), error.what());
    }
    tickets.push(std::nullopt);
}

void decide(const stpm::Detector &detector, const std::string &source, Tickets &tickets) {
    for (int number = 0; const auto ticket = tickets.pop(); ++number) {
        try {
            const stpm::Result result = detector.wait(*ticket);
            std::printf("%s frame %d: %s %.6g\n", source.c_str(), number,
                        result.is_anomalous ? "ANOMALOUS" : "ok",
                        static_cast<double>(result.score));
        } catch (const std::exception &error) {
            std::fprintf(stderr, "%s frame %d: %s\n", source.c_str(), number, error.what());
        }
    }
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 4) return std::fprintf(stderr, "usage: cameras BUNDLE FRAMES SOURCE...\n"), 2;
    const stpm::Detector detector(argv[1]);
    const int frames = std::stoi(argv[2]);
    const std::vector<std::string> sources(argv + 3, argv + argc);
    std::vector<Tickets> tickets(sources.size());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < sources.size(); ++i) {
        threads.emplace_back([&, i] { grab(detector, sources[i], frames, tickets[i]); });
        threads.emplace_back([&, i] { decide(detector, sources[i], tickets[i]); });
    }
    for (std::thread &thread : threads) thread.join();
    return 0;
} catch (const std::exception &error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
}
