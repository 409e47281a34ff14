#include "apps/lines.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "base/error.h"
#include "model_format/replaced_file.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {

size_t find_invalid_utf8(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
        if (static_cast<unsigned char>(text[i]) < 0x80) {
            ++i;
            continue;
        }
        const auto [code_point, bytes] = unicode::decode_utf8(text.data() + i, text.data() + text.size());
        // What stands for ill-formed bytes may be written out, too.
        if (code_point == 0xFFFD && text.substr(i, bytes) != "\xEF\xBF\xBD") return i;
        i += bytes;
    }
    return std::string_view::npos;
}

namespace {

// The input, or the reason why it is bad.
std::optional<std::string> parse(std::string_view line, TextInput& input) {
    const size_t invalid = find_invalid_utf8(line);
    if (invalid != std::string_view::npos)
        return "expected UTF-8, found an ill-formed byte at " + std::to_string(invalid);
    const size_t tab = line.find('\t');
    input = {line.substr(0, tab), std::nullopt};
    if (tab == std::string_view::npos) return std::nullopt;
    input.pair = line.substr(tab + 1);
    if (input.pair->find('\t') != std::string_view::npos)
        return "expected at most one tab (it parts a pair), found more";
    return std::nullopt;
}

}  // namespace

bool for_each_text(const std::vector<std::string>& arguments,
                   const std::function<void(const TextInput&)>& use,
                   const std::function<void(const std::string& message)>& bad) {
    bool good = true;
    size_t number = 0;
    const auto take = [&](const char* what, std::string_view line) {
        TextInput input;
        const std::string where = what + (" " + std::to_string(++number)) + ": ";
        try {
            const auto reason = parse(line, input);
            if (!reason) return use(input);
            bad(where + *reason);
        } catch (const Error& error) {
            bad(where + error.what());
        }
        good = false;
    };
    if (!arguments.empty()) {
        for (const std::string& argument : arguments)
            take("text", argument);
        return good;
    }
    for (std::string line; std::getline(std::cin, line);) {
        if (line.ends_with('\r')) line.pop_back();
        take("line", line);
    }
    if (std::cin.bad()) throw Error(Status::io, "stdin: cannot read");
    return good;
}

void require_utf8(const std::string& text, const std::string& what) {
    const size_t invalid = find_invalid_utf8(text);
    if (invalid != std::string::npos)
        throw Error(Status::invalid_argument, "%s: expected UTF-8, found an ill-formed byte at %zu",
                    what.c_str(), invalid);
}

std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(Status::io, "%s: cannot open the text", path.c_str());
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (file.bad()) throw Error(Status::io, "%s: cannot read the text", path.c_str());
    require_utf8(text, path);
    return text;
}

void write_text(const std::string& path, std::string_view text) {
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
        std::ofstream file(path, std::ios::binary);
        file.write(text.data(), static_cast<std::streamsize>(text.size()));
        if (!file.flush()) throw Error(Status::io, "%s: cannot write", path.c_str());
        return;
    }
    ReplacedFile file(path);
    file.append(std::as_bytes(std::span(text)));
    file.finish();
}

}  // namespace espalier
