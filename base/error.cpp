#include "base/error.h"

#include <cstdio>

namespace espalier {

Error::Error(Status status, const char* format, ...) : status_(status) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text_, sizeof(text_), format, arguments);
    va_end(arguments);
    // One line, whatever the file name or tensor name in it holds.
    for (char* c = text_; *c != 0; ++c) {
        if (static_cast<unsigned char>(*c) < 0x20) *c = '?';
    }
}

}  // namespace espalier
