// The one exception inside the library; the C boundary turns it into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "stpm.h"

namespace stpm::core {

class Error : public std::runtime_error {
  public:
    Error(stpm_status status, const std::string &message)
        : std::runtime_error(message), status_(status) {}

    stpm_status status() const noexcept { return status_; }

  private:
    stpm_status status_;
};

}  // namespace stpm::core
