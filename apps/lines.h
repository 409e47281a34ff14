// Texts from the command line or from the lines of stdin.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

struct TextInput {
    std::string_view text;
    std::optional<std::string_view> pair;  // what follows a tab
};

// Calls `use` for every argument, or for every line of stdin where there are none. A line with one tab is a
// pair; with more, or with bytes that are not UTF-8, it is bad: `bad` gets one line that says where and what.
// Returns false if any was bad. An empty line is an empty text.
bool for_each_text(const std::vector<std::string>& arguments,
                   const std::function<void(const TextInput&)>& use,
                   const std::function<void(const std::string& message)>& bad);

// Where the first ill-formed byte stands; none: npos. (Unicode 15, section 3.9, table 3-7.)
size_t find_invalid_utf8(std::string_view text);

// Throws Error(invalid_argument) that names `what` and the byte.
void require_utf8(const std::string& text, const std::string& what);

// The whole file, which must be UTF-8. Throws Error(io | invalid_argument).
std::string read_text(const std::string& path);

// A file is whole or not there (model_format/replaced_file.h); what is no file (/dev/stdout) is written to.
// Throws Error(io).
void write_text(const std::string& path, std::string_view text);

}  // namespace espalier
