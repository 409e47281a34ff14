// Vectors of the lines of a text, in a file, and the lines nearest to a query.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/describe.h"
#include "apps/npy.h"
#include "runtime/context.h"

namespace espalier {

// Views into the text; a last line may lack its end, and CR before an end is left out.
std::vector<std::string_view> lines_of(std::string_view text);

// Which model and text an index is of: what is written beside it, as INDEX.npy.json.
Json index_label(const Model& model, std::string_view text, size_t lines);

struct Indexed {
    size_t lines, resumed;  // resumed: that an earlier, stopped run had done
};
// Writes `path`, a row a line, and its label. A run that is stopped leaves PATH.part, which the next run on
// the same model and text goes on with. Throws Error.
Indexed write_index(const Model& model, std::string_view text, const std::string& path, int threads);

struct Hit {
    uint64_t line;  // from 0
    float cosine;
};
// The k rows nearest to the vector, nearest first, the first of equals first. Exact.
std::vector<Hit> nearest(const Matrix& index, std::span<const float> vector, size_t k);

}  // namespace espalier
