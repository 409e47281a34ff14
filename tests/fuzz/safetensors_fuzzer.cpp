// Any bytes as a .safetensors file: refused with an Error, or every tensor can be read.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "apps/importers/safetensors.h"
#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace espalier;
    static const std::string path =
        (std::filesystem::temp_directory_path() / ("espalier-fuzz-" + std::to_string(::getpid()))).string();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    try {
        Safetensors file(path);
        for (const auto& [name, tensor] : file.tensors()) {
            const bool readable = tensor.type == "F32" || tensor.type == "F16" || tensor.type == "BF16";
            if (readable && Safetensors::values(file.check(name, tensor.shape)).size() > size) std::abort();
        }
    } catch (const Error& error) {
        if (error.what()[0] == 0) std::abort();
    }
    std::filesystem::remove(path);
    return 0;
}
