// The one error type inside the library. It never crosses the C API: espalier.h turns it into a status
// and a message. A message is one line that says what, where, what was expected and what was found.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <exception>

namespace espalier {

// Mirrors espalier_status in espalier.h, value for value.
enum class Status {
    ok = 0,
    invalid_argument = 1,  // the caller's mistake: a null pointer, a size out of range
    io = 2,                // the operating system refused: open, map, read, write
    bad_model = 3,         // the bytes are no valid model
    unsupported = 4,       // valid, but not in this version, build or machine
    out_of_memory = 5,
    cancelled = 6,
    too_long = 7,  // more tokens than the context or the model can take
    internal = 8,
};

// Holds its text in place, so that reporting "out of memory" needs no memory.
class Error : public std::exception {
   public:
    Error(Status status, const char* format, ...) __attribute__((format(printf, 3, 4)));
    Status status() const noexcept { return status_; }
    const char* what() const noexcept override { return text_; }

   private:
    Status status_;
    char text_[480];
};

}  // namespace espalier
