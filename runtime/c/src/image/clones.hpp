// STPM_CLONES before a function: compiled for the widest instructions as well, of which the
// processor at hand chooses when the library is loaded. Sanitizers cannot run the code that chooses.
#pragma once

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(STPM_SANITIZED)
#define STPM_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define STPM_CLONES
#endif
