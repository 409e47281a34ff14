// NumPy's file of one array (numpy.lib.format, version 1.0): float32 matrices, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace espalier {

// A header is padded to this many bytes, so that rows can be appended and counted.
inline constexpr size_t npy_header_bytes = 128;
std::string npy_header(uint64_t rows, uint64_t columns);

struct Matrix {
    uint64_t rows = 0, columns = 0;
    std::vector<float> values;
    const float* row(uint64_t i) const { return values.data() + i * columns; }
};

// Throws Error(io | bad_model | unsupported) that names the file.
Matrix read_npy(const std::string& path);

}  // namespace espalier
