#include "model_format/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

class Descriptor {
   public:
    // Not blocking: a named pipe without a writer is refused as no regular file, not waited for.
    explicit Descriptor(const char* path) : fd_(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
        if (fd_ < 0) throw Error(Status::io, "%s: cannot open: %s", path, std::strerror(errno));
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() { ::close(fd_); }
    int get() const { return fd_; }

   private:
    int fd_;
};

size_t size_of(const Descriptor& file, const char* path) {
    struct stat info {};
    if (::fstat(file.get(), &info) != 0)
        throw Error(Status::io, "%s: cannot stat: %s", path, std::strerror(errno));
    if (!S_ISREG(info.st_mode)) throw Error(Status::io, "%s: expected a regular file", path);
    return static_cast<size_t>(info.st_size);
}

void read_all(const Descriptor& file, const char* path, std::byte* target, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        const ssize_t count = ::read(file.get(), target + done, bytes - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) throw Error(Status::io, "%s: cannot read: %s", path, std::strerror(errno));
        if (count == 0)
            throw Error(Status::io, "%s: ended at byte %zu of %zu while it was read", path, done, bytes);
        done += static_cast<size_t>(count);
    }
}

}  // namespace

MappedFile::MappedFile(const char* path, bool map, std::pmr::memory_resource* memory) {
    const Descriptor file(path);
    const size_t bytes = size_of(file, path);
    if (bytes == 0) return;
    if (map) {
        void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
        if (address == MAP_FAILED) throw Error(Status::io, "%s: cannot map: %s", path, std::strerror(errno));
        bytes_ = {static_cast<const std::byte*>(address), bytes};
        // A file that shrank in between would raise SIGBUS at the first touch of the missing pages.
        if (size_of(file, path) < bytes) {
            ::munmap(address, bytes);
            throw Error(Status::io, "%s: shrank while it was opened", path);
        }
        return;
    }
    auto* target = static_cast<std::byte*>(memory->allocate(bytes, layout::tensor_alignment));
    owner_ = memory;
    bytes_ = {target, bytes};
    try {
        read_all(file, path, target, bytes);
    } catch (...) {
        memory->deallocate(target, bytes, layout::tensor_alignment);
        throw;
    }
}

void MappedFile::release(std::span<const std::byte> part) const {
    if (bytes_.empty() || owner_ != nullptr) return;
    // Whole pages of the part alone.
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const auto start = static_cast<size_t>(part.data() - bytes_.data());  // a mapping begins with a page
    const size_t begin = (start + page - 1) / page * page, end = (start + part.size()) / page * page;
    if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), owner_(std::exchange(other.owner_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(owner_, other.owner_);
    return *this;
}

MappedFile::~MappedFile() {
    if (bytes_.empty()) return;
    auto* address = const_cast<std::byte*>(bytes_.data());
    if (owner_ != nullptr) {
        owner_->deallocate(address, bytes_.size(), layout::tensor_alignment);
    } else {
        ::munmap(address, bytes_.size());
    }
}

}  // namespace espalier
