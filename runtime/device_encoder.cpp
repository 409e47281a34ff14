#include "runtime/device_encoder.h"

#include <charconv>

#include "base/error.h"

namespace espalier {

DeviceName device_named(std::string_view name) {
    if (name.empty() || name == "cpu") return {};
    if (name == "cuda") return {true, 0};
    constexpr std::string_view prefix = "cuda:";
    int number = -1;
    if (name.starts_with(prefix)) {
        const char* end = name.data() + name.size();
        const auto [stop, error] = std::from_chars(name.data() + prefix.size(), end, number);
        if (error != std::errc() || stop != end) number = -1;
    }
    if (number < 0)
        throw Error(Status::invalid_argument, "device: expected cpu, cuda or cuda:N, found %.*s",
                    static_cast<int>(name.size()), name.data());
    return {true, number};
}

}  // namespace espalier
