// SHA-256 of bytes that come in parts.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <openssl/evp.h>

namespace stpm::core {

class Sha256 {
  public:
    Sha256();

    void add(const void *bytes, std::size_t size);

    // Returns 64 hex digits, once.
    std::string digits();

  private:
    struct Free {
        void operator()(EVP_MD_CTX *context) const { EVP_MD_CTX_free(context); }
    };

    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

}  // namespace stpm::core
