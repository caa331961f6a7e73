# JSON, SHA-256 and ZIP by well-kept libraries.
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.9 QUIET)
find_package(OpenSSL QUIET COMPONENTS Crypto)
find_path(LIBZIP_INCLUDE_DIR zip.h)
find_library(LIBZIP_LIBRARY NAMES zip libzip)
mark_as_advanced(LIBZIP_INCLUDE_DIR LIBZIP_LIBRARY)

# libzip's own CMake package names command-line tools that Debian leaves out, and then fails.
if(NOT nlohmann_json_FOUND OR NOT OpenSSL_FOUND OR NOT LIBZIP_INCLUDE_DIR OR NOT LIBZIP_LIBRARY)
  message(FATAL_ERROR
    "libstpm needs nlohmann_json, OpenSSL and libzip; on Debian and Ubuntu: "
    "apt-get install nlohmann-json3-dev libssl-dev libzip-dev; "
    "with vcpkg: vcpkg install nlohmann-json openssl libzip")
endif()

add_library(stpm_dependencies INTERFACE)
target_include_directories(stpm_dependencies SYSTEM INTERFACE ${LIBZIP_INCLUDE_DIR})
target_link_libraries(stpm_dependencies INTERFACE
  nlohmann_json::nlohmann_json OpenSSL::Crypto ${LIBZIP_LIBRARY} Threads::Threads)

add_library(stpm_warnings INTERFACE)
if(MSVC)
  target_compile_options(stpm_warnings INTERFACE /W4 /WX)
  target_compile_definitions(stpm_warnings INTERFACE _CRT_SECURE_NO_WARNINGS) # fopen is C99
else()
  target_compile_options(stpm_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Werror)
endif()
