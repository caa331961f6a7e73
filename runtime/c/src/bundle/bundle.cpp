#include "bundle/bundle.hpp"

#include <algorithm>
#include <fstream>

#include "error.hpp"
#include "sha256.hpp"

namespace stpm::core {
namespace {

constexpr std::size_t kMaxManifestBytes = 1 << 20;
constexpr std::size_t kChunk = 1 << 20;

// Reads at most limit + 1 bytes, and allocates no more than the file has.
Bytes read_bounded(const std::filesystem::path &path, const std::string &shown,
                   std::size_t limit) {
    std::ifstream file(path, std::ios::binary);
    Bytes content;
    while (file && content.size() <= limit) {
        const std::size_t old = content.size();
        content.resize(old + std::min(kChunk, limit + 1 - old));
        file.read(reinterpret_cast<char *>(content.data() + old),
                  static_cast<std::streamsize>(content.size() - old));
        content.resize(old + static_cast<std::size_t>(file.gcount()));
    }
    if (!file.eof() && content.size() <= limit) {
        throw Error(STPM_ERROR_BUNDLE, shown + ": cannot be read; copy the bundle again.");
    }
    return content;
}

std::string sha256(const Bytes &content) {
    Sha256 hash;
    hash.add(content.data(), content.size());
    return hash.digits();
}

}  // namespace

Bundle::Bundle(const std::string &path) : path_(path), folder_(std::filesystem::u8path(path)) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(folder_, ignored)) {
        throw Error(STPM_ERROR_BUNDLE,
                    path + ": there is no such bundle; expected a folder NAME.stpm.");
    }
    const std::string shown = path + "/manifest.json";
    const Bytes content = read_bounded(folder_ / "manifest.json", shown, kMaxManifestBytes);
    if (content.size() > kMaxManifestBytes) {
        throw Error(STPM_ERROR_BUNDLE, shown + ": is larger than " +
                                           std::to_string(kMaxManifestBytes) +
                                           " bytes, so it is not a manifest; export the bundle "
                                           "again.");
    }
    manifest_ = parse_manifest(content, shown);
}

Bytes Bundle::read(const std::string &name) const {
    const auto entry = manifest_.files.find(name);
    if (entry == manifest_.files.end()) {
        throw Error(STPM_ERROR_BUNDLE,
                    path_ + ": its manifest does not list " + name + "; export it again.");
    }
    const std::string shown = path_ + "/" + name;
    Bytes content = read_bounded(folder_ / name, shown, entry->second.size_bytes);
    if (content.size() != entry->second.size_bytes || sha256(content) != entry->second.sha256) {
        throw Error(STPM_ERROR_BUNDLE,
                    shown + ": differs from the manifest's hash, so it was modified or truncated; "
                            "copy or export the bundle again.");
    }
    return content;
}

Golden Bundle::golden() const {
    return parse_golden(read("golden.npz"), manifest_.golden_contract(), path_ + "/golden.npz");
}

ScoringMap Bundle::scoring_map() const {
    return parse_scoring_map(read("scoring.npz"), manifest_.contract.map,
                             manifest_.scoring.roi_count(), path_ + "/scoring.npz");
}

Reference Bundle::reference() const {
    return parse_reference(read("align.npz"), manifest_.scoring.align.value().working_size(),
                           path_ + "/align.npz");
}

}  // namespace stpm::core
