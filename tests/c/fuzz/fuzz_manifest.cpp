// Any manifest is parsed or refused with a message.
#include "bundle/bundle.hpp"
#include "error.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    try {
        stpm::core::parse_manifest({data, data + size}, "manifest.json");
    } catch (const stpm::core::Error &error) {
        if (error.status() != STPM_ERROR_BUNDLE) __builtin_trap();
    }
    return 0;
}
