// Reads the official GLUE files: tab-separated UTF-8, a row a line, no quoting, columns found by header name
// (CoLA has no header: by position). CR LF and a byte-order mark are accepted. Every row has exactly as many
// columns as the header; nothing is skipped: a row that cannot be read is an error, an empty line too.
// Errors: invalid_argument "FILE:LINE: expected ..., got ...", or io.
#pragma once

#include <cstddef>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "apps/glue/tasks.h"

namespace espalier {

struct Example {
    std::string a, b;  // may be empty; b is empty for single sentences
    bool is_pair = false;
    std::string label;                                        // never empty; match_label gives its index
    double score = std::numeric_limits<double>::quiet_NaN();  // the label of a task of scores (STS-B)
    std::size_t line = 0;                                     // in the file, from 1, the header counted
};

class TsvReader {
   public:
    // Opens the file and finds the columns. The task must live as long as the reader (those in tasks() do).
    TsvReader(const Task& task, std::string path);

    // The next row; false at the end of the file. A file without a row is an error.
    bool next(Example& example);

    // "FILE:LINE" of the row that next() gave last, for messages of the caller's.
    std::string where() const;

   private:
    bool read_line();
    void split_line();
    void read_header();
    std::size_t column(std::string_view name) const;
    void check_row() const;
    [[noreturn]] void fail(const std::string& message) const;

    const Task& task_;
    std::string path_;
    std::ifstream file_;
    std::string line_;
    std::size_t line_number_ = 0;
    std::size_t rows_ = 0;
    std::vector<std::string> header_;
    std::vector<std::string_view> fields_;  // of line_
    std::size_t column_a_ = 0, column_b_ = 0, column_label_ = 0;
};

std::vector<Example> read_examples(const Task& task, const std::string& path);

}  // namespace espalier
