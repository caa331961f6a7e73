// A record of verdicts as stpm-live writes it: see docs/live.md. `stpm-run BUNDLE --replay FOLDER`
// checks it and scores its images again; a station in Python may go on with it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include <stpm.hpp>

#include "json.hpp"

// One process writes it at a time, any of whose threads may.
class Record {
  public:
    using Clock = std::chrono::system_clock;

    // Opens a record, or begins one; what a killed process left of a line is removed. Throws
    // std::runtime_error when its end is cut or was altered.
    explicit Record(const std::filesystem::path &folder) : folder_(folder) {
        std::filesystem::create_directories(folder);
        find_end();
        tell();
    }

    Record(const Record &) = delete;
    Record &operator=(const Record &) = delete;
    ~Record() { close(); }

    // Writes a verdict to the disk. Throws std::runtime_error when the disk refuses it; what it took
    // is removed.
    void append(Clock::time_point time, const Fields &verdict) {
        const std::lock_guard lock(mutex_);
        const std::string at = utc(time);
        open(at.substr(0, 10));
        const std::string line = "{\"time\":" + json_text(at) + "," + verdict.members() +
                                 ",\"previous\":\"" + previous_ + "\"}\n";
        if (std::filesystem::file_size(path_) != size_) {
            throw std::runtime_error(path_.string() + ": somebody else has written into this "
                                                      "record; give each station its own folder");
        }
        if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || !sync()) {
            std::filesystem::resize_file(path_, size_);
            throw std::runtime_error(path_.string() + ": the disk refuses a verdict");
        }
        size_ += line.size();
        previous_ = stpm::hash(line);
        ++count_;
        tell();
    }

  private:
    // ISO 8601 in UTC, to the microsecond.
    static std::string utc(Clock::time_point time) {
        const auto since = std::chrono::duration_cast<std::chrono::microseconds>(
                               time.time_since_epoch()).count();
        const auto seconds = static_cast<std::time_t>(since / 1'000'000);
        char date[32], text[64];
        std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", std::gmtime(&seconds));
        std::snprintf(text, sizeof text, "%s.%06d+00:00", date,
                      static_cast<int>(since % 1'000'000));
        return text;
    }

    // Reads the last day, whose lines have to go on from the one that last.json knows; all days where
    // it knows none.
    void find_end() {
        std::vector<std::filesystem::path> files;
        for (const auto &entry : std::filesystem::directory_iterator(folder_)) {
            const std::string name = entry.path().filename().string();
            if (name.rfind("verdicts-", 0) == 0 && entry.path().extension() == ".jsonl") {
                files.push_back(entry.path());
            }
        }
        std::sort(files.begin(), files.end());
        if (!files.empty()) {
            name_ = files.back().filename().string();
            cut_torn_line(files.back());
        }
        const auto is_empty = [](const auto &file) { return std::filesystem::is_empty(file); };
        files.erase(std::remove_if(files.begin(), files.end(), is_empty), files.end());
        bool is_bound = !read_last() || count_ == 0;
        const auto first = is_bound || files.empty() ? files.begin() : files.end() - 1;
        for (auto file = first; file != files.end(); ++file) is_bound = read(*file, is_bound);
        if (!is_bound) {
            throw std::runtime_error(folder_.string() +
                                     ": its end is cut or was altered; look at it with stpm-run "
                                     "--replay, keep it, and name another folder");
        }
    }

    bool read_last() {
        std::ifstream last(folder_ / "last.json");
        const std::string said(std::istreambuf_iterator<char>(last), {});
        char hash[STPM_SHA256_SIZE] = {};
        const bool is_said = std::sscanf(said.c_str(), "{\"lines\": %llu, \"sha256\": \"%64[0-9a-f]",
                                         &count_, hash) == 2;
        if (is_said) previous_ = hash;
        return is_said;
    }

    // Returns whether the file's last line is bound to the one that was the last so far.
    bool read(const std::filesystem::path &path, bool is_bound) {
        std::ifstream file(path, std::ios::binary);
        std::string line;
        for (bool is_first = true; std::getline(file, line); is_first = false) {
            line += '\n';
            const std::string bound_to = previous_of(line), hash = stpm::hash(line);
            is_bound = is_bound || (is_first && bound_to == previous_);
            if (is_bound) {
                if (bound_to != previous_) return false;
                previous_ = hash;
                ++count_;
            }
            is_bound = is_bound || hash == previous_;
        }
        return is_bound;
    }

    // What a killed process left: nobody was told of it.
    static void cut_torn_line(const std::filesystem::path &path) {
        std::ifstream file(path, std::ios::binary);
        std::uintmax_t whole = std::filesystem::file_size(path);
        for (; whole > 0; --whole) {
            file.seekg(static_cast<std::streamoff>(whole - 1));
            if (file.get() == '\n') break;
        }
        file.close();
        if (whole < std::filesystem::file_size(path)) std::filesystem::resize_file(path, whole);
    }

    static std::string previous_of(const std::string &line) {
        constexpr std::size_t size = STPM_SHA256_SIZE - 1, end = 3;  // "}\n
        return line.size() > size + end ? line.substr(line.size() - end - size, size) : "";
    }

    // Never goes back a day: lines are bound in the order of the files.
    void open(const std::string &day) {
        name_ = std::max(name_, "verdicts-" + day + ".jsonl");
        if (file_ != nullptr && path_ == folder_ / name_) return;
        close();
        path_ = folder_ / name_;
        file_ = std::fopen(path_.string().c_str(), "ab");
        if (file_ == nullptr) throw std::runtime_error(path_.string() + ": cannot be written");
        std::setvbuf(file_, nullptr, _IONBF, 0);
        size_ = std::filesystem::file_size(path_);
    }

    void close() {
        if (file_ != nullptr) std::fclose(file_);
        file_ = nullptr;
    }

    bool sync() const {
#ifdef _WIN32
        return _commit(_fileno(file_)) == 0;
#else
        return fsync(fileno(file_)) == 0;
#endif
    }

    // Says how far the record goes; it may lag behind, and is never ahead.
    void tell() const {
        const auto partial = folder_ / ".last.json.partial";
        std::ofstream(partial) << "{\"lines\": " << count_ << ", \"sha256\": \"" << previous_ << "\"}";
        std::filesystem::rename(partial, folder_ / "last.json");
    }

    std::filesystem::path folder_, path_;
    std::string name_;
    std::FILE *file_ = nullptr;
    std::uintmax_t size_ = 0;
    unsigned long long count_ = 0;
    std::string previous_ = std::string(STPM_SHA256_SIZE - 1, '0');
    std::mutex mutex_;
};
