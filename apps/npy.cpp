#include "apps/npy.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <string_view>

#include "base/checked.h"
#include "base/error.h"

namespace espalier {
namespace {

constexpr char magic[] = "\x93NUMPY\x01";

[[noreturn]] void fail(const std::string& path, const char* expected) {
    throw Error(Status::bad_model, "%s: expected a NumPy file of float32 [rows, columns]: %s", path.c_str(),
                expected);
}

// The number behind `key`, of the text of a Python dictionary.
uint64_t number_after(std::string_view text, size_t& at, const std::string& path) {
    while (at < text.size() && (text[at] == ' ' || text[at] == ',' || text[at] == '('))
        ++at;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + text.size(), value);
    if (error != std::errc()) fail(path, "no shape of two numbers in its header");
    at = static_cast<size_t>(end - text.data());
    return value;
}

}  // namespace

std::string npy_header(uint64_t rows, uint64_t columns) {
    std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows) + ", " +
                       std::to_string(columns) + "), }";
    constexpr size_t before = 10;  // magic, version, length
    text.resize(npy_header_bytes - before - 1, ' ');
    text += '\n';
    std::string header(magic, 7);
    header.push_back('\0');
    header.push_back(static_cast<char>(text.size() & 0xffu));
    header.push_back(static_cast<char>(text.size() >> 8));
    return header + text;
}

Matrix read_npy(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(Status::io, "%s: cannot open: %s", path.c_str(), std::strerror(errno));
    char start[10];
    if (!file.read(start, sizeof(start)) || std::memcmp(start, magic, 7) != 0)
        fail(path, "another start, or another version");
    const size_t length = static_cast<unsigned char>(start[8]) | size_t{static_cast<unsigned char>(start[9])}
                                                                     << 8;
    std::string header(length, ' ');
    if (!file.read(header.data(), static_cast<std::streamsize>(length))) fail(path, "it ends in its header");
    if (header.find("'<f4'") == std::string::npos || header.find("False") == std::string::npos)
        fail(path, "other numbers, or another order");
    size_t at = header.find("'shape':");
    if (at == std::string::npos) fail(path, "no shape in its header");
    at += 8;
    Matrix matrix;
    matrix.rows = number_after(header, at, path);
    matrix.columns = number_after(header, at, path);
    uint64_t count = 0, bytes = 0;
    if (!checked_multiply(matrix.rows, matrix.columns, count) || !checked_multiply(count, 4, bytes))
        fail(path, "a shape too large");
    file.seekg(0, std::ios::end);
    if (static_cast<uint64_t>(file.tellg()) != bytes + length + sizeof(start))
        fail(path, "another length than its shape says");
    file.seekg(static_cast<std::streamoff>(length + sizeof(start)));
    matrix.values.resize(count);
    if (!file.read(reinterpret_cast<char*>(matrix.values.data()), static_cast<std::streamsize>(bytes)))
        throw Error(Status::io, "%s: cannot read", path.c_str());
    return matrix;
}

}  // namespace espalier
