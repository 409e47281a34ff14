// What the fuzz targets share: a finding is an abort, and a refusal is an Error of one clear line. Anything
// else that is thrown goes up to libFuzzer, which reports it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace espalier::fuzz {

inline void require(bool good) {
    if (!good) std::abort();
}

inline bool is_one_line(std::string_view message) {
    return !message.empty() && message.find('\n') == std::string_view::npos;
}

// Whether the body ran to its end, not refused.
template <typename Body>
bool accepted(const Body& body) {
    try {
        body();
        return true;
    } catch (const Error& error) {
        require(is_one_line(error.what()) && error.status() != Status::internal);
        return false;
    }
}

}  // namespace espalier::fuzz
