// A file that appears under its name only when it is whole: it is written beside it, as NAME.part, and
// renamed. What was there before stays until then, whatever goes wrong; a program that is killed leaves
// NAME.part behind, which the next one overwrites. Who has the old file open or mapped keeps the old file.
#pragma once

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>

namespace espalier {

class ReplacedFile {
   public:
    // All throw Error(io) with the path and the system's reason.
    explicit ReplacedFile(const std::string& path);
    ReplacedFile(const ReplacedFile&) = delete;
    ReplacedFile& operator=(const ReplacedFile&) = delete;
    ~ReplacedFile();  // not finished: nothing is left behind

    void append(std::span<const std::byte> bytes);
    void rewrite_start(std::span<const std::byte> bytes);
    void finish();

   private:
    [[noreturn]] void fail(const char* what) const;

    std::string path_, part_;
    std::FILE* file_;
};

}  // namespace espalier
