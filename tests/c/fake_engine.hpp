// An engine whose map is the red channel over 255, and which fails on demand.
#pragma once

#include <atomic>

enum class Fault { none, error, memory, no_exception, not_finite };

// Of the next runs, until it is set back.
extern std::atomic<Fault> fault;
// Of each run, in milliseconds.
extern std::atomic<int> delay_ms;
// Runs so far.
extern std::atomic<int> run_count;
