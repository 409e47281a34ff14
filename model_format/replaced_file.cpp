#include "model_format/replaced_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace espalier {

ReplacedFile::ReplacedFile(const std::string& path)
    : path_(path), part_(path + ".part"), file_(std::fopen(part_.c_str(), "wb")) {
    if (file_ == nullptr) fail("open for writing");
}

ReplacedFile::~ReplacedFile() {
    if (file_ == nullptr) return;
    std::fclose(file_);
    std::remove(part_.c_str());
}

void ReplacedFile::append(std::span<const std::byte> bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("write");
}

void ReplacedFile::rewrite_start(std::span<const std::byte> bytes) {
    if (std::fseek(file_, 0, SEEK_SET) != 0) fail("seek in");
    append(bytes);
}

void ReplacedFile::finish() {
    // On the disc before it has the name: otherwise a power failure could leave the name with nothing in it.
    if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) fail("write");
    std::FILE* file = file_;
    file_ = nullptr;
    if (std::fclose(file) != 0 || std::rename(part_.c_str(), path_.c_str()) != 0) {
        const int reason = errno;
        std::remove(part_.c_str());
        throw Error(Status::io, "%s: cannot finish: %s", path_.c_str(), std::strerror(reason));
    }
}

void ReplacedFile::fail(const char* what) const {
    throw Error(Status::io, "%s: cannot %s: %s", part_.c_str(), what, std::strerror(errno));
}

}  // namespace espalier
