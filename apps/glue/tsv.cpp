#include "apps/glue/tsv.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/error.h"

namespace espalier {
namespace {

using std::string_view;

// An Error holds 480 bytes: whatever comes from the file is shortened so that the whole line fits. A cut
// never leaves half a UTF-8 sequence behind.
std::string excerpt(string_view text, std::size_t most) {
    if (text.size() <= most) return std::string(text);
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80)
        --most;
    return std::string(text.substr(0, most)) + "...";
}

// Of a long path the end says more.
std::string path_excerpt(string_view path) {
    constexpr std::size_t most = 160;
    if (path.size() <= most) return std::string(path);
    std::size_t start = path.size() - most;
    while (start < path.size() && (static_cast<unsigned char>(path[start]) & 0xC0) == 0x80)
        ++start;
    return "..." + std::string(path.substr(start));
}

std::string in_quotes(string_view text) {
    return "'" + excerpt(text, 60) + "'";
}

std::string columns(std::size_t count) {
    return std::to_string(count) + (count == 1 ? " column" : " columns");
}

}  // namespace

TsvReader::TsvReader(const Task& task, std::string path) : task_(task), path_(std::move(path)) {
    errno = 0;
    file_.open(path_, std::ios::binary);
    if (!file_) {
        throw Error(Status::io, "%s: cannot open: %s", path_excerpt(path_).c_str(), std::strerror(errno));
    }
    if (task_.positional.empty()) {
        read_header();
    } else {
        header_.assign(task_.positional.begin(), task_.positional.end());
    }
    column_a_ = column(task_.column_a);
    column_b_ = task_.is_pair() ? column(task_.column_b) : 0;
    column_label_ = column(task_.column_label);
}

void TsvReader::read_header() {
    if (!read_line() || line_.empty()) {
        line_number_ = 1;
        fail("expected a header row with column " + in_quotes(task_.column_label) + ", got " +
             (file_.eof() ? "an empty file" : "an empty line"));
    }
    split_line();
    header_.assign(fields_.begin(), fields_.end());
}

std::size_t TsvReader::column(string_view name) const {
    const auto found = std::find(header_.begin(), header_.end(), name);
    if (found == header_.end()) {
        std::string names;
        for (const std::string& each : header_)
            names += (names.empty() ? "" : ", ") + each;
        fail("expected a column " + in_quotes(name) + " in the header of a " + std::string(task_.name) +
             " file, got " + excerpt(names, 200));
    }
    if (std::find(found + 1, header_.end(), name) != header_.end()) {
        fail("expected one column " + in_quotes(name) + ", got two");
    }
    return static_cast<std::size_t>(found - header_.begin());
}

bool TsvReader::next(Example& example) {
    if (!read_line()) {
        if (rows_ == 0) {
            ++line_number_;
            fail("expected at least one row, got the end of the file");
        }
        return false;
    }
    split_line();
    check_row();
    example.is_pair = task_.is_pair();
    example.a = fields_[column_a_];
    example.b = example.is_pair ? fields_[column_b_] : string_view();
    example.label = fields_[column_label_];
    example.score = std::numeric_limits<double>::quiet_NaN();
    if (task_.is_score()) {
        const std::optional<double> score = parse_score(example.label);
        if (!score) {
            fail("expected a number in column " + in_quotes(task_.column_label) + ", got " +
                 in_quotes(example.label));
        }
        example.score = *score;
    }
    example.line = line_number_;
    ++rows_;
    return true;
}

// Strict about the count either way: a tab too many or too few shifts every column after it.
void TsvReader::check_row() const {
    const std::size_t want = header_.size(), got = fields_.size();
    if (line_.empty()) fail("expected " + columns(want) + ", got an empty line");
    if (got < want) {
        fail("expected " + columns(want) + ", got " + columns(got) + ": no column " +
             in_quotes(header_[got]));
    }
    if (got > want) {
        fail("expected " + columns(want) + ", got " + columns(got) + ": after column " +
             in_quotes(header_.back()) + " comes " + in_quotes(fields_[want]));
    }
    if (fields_[column_label_].empty()) {
        fail("expected a label in column " + in_quotes(task_.column_label) + ", got an empty field");
    }
}

bool TsvReader::read_line() {
    errno = 0;
    if (!std::getline(file_, line_)) {
        // A folder opens but does not read.
        if (file_.bad()) {
            throw Error(Status::io, "%s: cannot read after line %zu: %s", path_excerpt(path_).c_str(),
                        line_number_, std::strerror(errno != 0 ? errno : EIO));
        }
        return false;
    }
    ++line_number_;
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (line_number_ == 1 && line_.starts_with("\xEF\xBB\xBF")) line_.erase(0, 3);
    if (line_.find('\0') != std::string::npos) fail("expected UTF-8 text, got a zero byte");
    return true;
}

void TsvReader::split_line() {
    fields_.clear();
    string_view rest = line_;
    for (std::size_t tab = rest.find('\t'); tab != string_view::npos; tab = rest.find('\t')) {
        fields_.push_back(rest.substr(0, tab));
        rest.remove_prefix(tab + 1);
    }
    fields_.push_back(rest);
}

std::string TsvReader::where() const {
    return path_excerpt(path_) + ":" + std::to_string(line_number_);
}

void TsvReader::fail(const std::string& message) const {
    throw Error(Status::invalid_argument, "%s: %s", where().c_str(), message.c_str());
}

std::vector<Example> read_examples(const Task& task, const std::string& path) {
    TsvReader reader(task, path);
    std::vector<Example> examples;
    for (Example example; reader.next(example);)
        examples.push_back(example);
    return examples;
}

}  // namespace espalier
