#include "apps/fuse/heat_map.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/svg.h"

namespace espalier {
namespace {

constexpr int margin = 48, title_height = 28;

template <typename... Values>
void append(std::string& out, const char* format, Values... values) {
    char line[320];
    std::snprintf(line, sizeof(line), format, values...);
    out += line;
}

// From white through blue to nearly black as depth goes from 0 to 1.
void append_cell(std::string& out, int x, int y, int size, double depth, size_t removed, size_t block,
                 double value) {
    const double d = std::clamp(depth, 0.0, 1.0);
    append(
        out,
        "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"rgb(%d,%d,%d)\"><title>without %zu: %zu "
        "moves by %.4f</title></rect>\n",
        x, y, size, size, static_cast<int>(std::lround(255 - 247 * d)),
        static_cast<int>(std::lround(255 - 207 * d)), static_cast<int>(std::lround(255 - 148 * d)), removed,
        block, value);
}

}  // namespace

std::string heat_map(const Analysis& analysis, const std::string& title) {
    const size_t n = analysis.blocks;
    const int cell = std::clamp(640 / static_cast<int>(std::max<size_t>(n, 1)), 6, 40);
    const int side = cell * static_cast<int>(n), width = side + 2 * margin,
              height = side + 2 * margin + title_height, top = margin + title_height;
    double largest = 0;
    for (const double value : analysis.dependency)
        largest = std::max(largest, value);
    std::string out;
    append(out,
           "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" "
           "font-size=\"11\">\n<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
           width, height, width, height);
    append(out, "<text x=\"%d\" y=\"20\" font-size=\"14\">", margin);
    out += svg_text(title) + "</text>\n";
    append(out,
           "<text x=\"%d\" y=\"40\">columns: a block; rows: the block removed; darkest: a cosine distance of "
           "%.3f</text>\n",
           margin, largest);
    const size_t every = n > 40 ? 8 : n > 16 ? 4 : 1;  // numbers that find room
    for (size_t i = 0; i < n; ++i) {
        const int at = cell * static_cast<int>(i);
        if (i % every == 0) {
            append(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%zu</text>\n", margin - 5,
                   top + at + cell / 2 + 4, i);
            append(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%zu</text>\n", margin + at + cell / 2,
                   top - 5, i);
        }
        for (size_t j = i + 1; j < n; ++j)
            append_cell(out, margin + cell * static_cast<int>(j), top + at, cell,
                        largest > 0 ? analysis.at(i, j) / largest : 0, i, j, analysis.at(i, j));
    }
    append(out,
           "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#999\"/>\n</svg>\n",
           margin, top, side, side);
    return out;
}

}  // namespace espalier
