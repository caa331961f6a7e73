#include "sha256.hpp"

#include <array>
#include <new>

#include "error.hpp"

namespace stpm::core {
namespace {

void check(int done) {
    if (done != 1) {
        throw Error(STPM_ERROR_INTERNAL, "OpenSSL cannot compute a SHA-256; check its policy.");
    }
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    if (!context_) throw std::bad_alloc();
    check(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr));
}

void Sha256::add(const void *bytes, std::size_t size) {
    check(EVP_DigestUpdate(context_.get(), bytes, size));
}

std::string Sha256::digits() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int length = 0;
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), &length));
    constexpr char hex[] = "0123456789abcdef";
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
        text += hex[digest[i] >> 4];
        text += hex[digest[i] & 15];
    }
    return text;
}

}  // namespace stpm::core
