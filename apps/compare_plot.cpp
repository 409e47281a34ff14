// The picture of a comparison: bars of the error after each layer on a logarithmic scale, and of equal
// leaves.
#include <algorithm>
#include <cmath>

#include "apps/compare.h"
#include "apps/svg.h"

namespace espalier {
namespace {

constexpr double left = 70, height = 160, step = 46, gap = 70;

std::string number(const char* format, double value) {
    char text[64];
    std::snprintf(text, sizeof(text), format, value);
    return text;
}

std::string label(double x, double y, const std::string& text, const char* anchor = "middle") {
    return "<text x=\"" + number("%.1f", x) + "\" y=\"" + number("%.1f", y) + "\" text-anchor=\"" + anchor +
           "\">" + svg_text(text) + "</text>\n";
}

// share: of the full height.
std::string bar(size_t i, double top, double share, const std::string& name, const std::string& value,
                const char* colour) {
    const double x = left + static_cast<double>(i) * step, full = std::clamp(share, 0.0, 1.0) * height;
    return "<rect x=\"" + number("%.1f", x) + "\" y=\"" + number("%.1f", top + height - full) +
           "\" width=\"30\" height=\"" + number("%.1f", full) + "\" fill=\"" + colour + "\"/>\n" +
           label(x + 15, top + height - full - 4, value) + label(x + 15, top + height + 14, name);
}

}  // namespace

std::string ModelComparison::plot(const std::string& title) const {
    const size_t bars = std::max({layers_.size() + 1, forests_.size(), size_t{8}});
    const double width = left + static_cast<double>(bars) * step + 20,
                 whole = 60 + height + (forests_.empty() ? 0 : gap + height) + 40;
    std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number("%.0f", width) +
                      "\" height=\"" + number("%.0f", whole) +
                      "\" font-family=\"sans-serif\" font-size=\"10\">\n"
                      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n" +
                      label(20, 20, title, "start") +
                      label(20, 38, "relative error after each layer (logarithmic, 1e-7 to 1)", "start");
    const auto error_bar = [&](size_t i, const Distance& e, const std::string& name) {
        const double relative = e.relative();
        svg += bar(i, 60, relative > 0 ? (std::log10(relative) + 7) / 7 : 0, name, number("%.0e", relative),
                   "#4a7");
    };
    for (size_t l = 0; l < layers_.size(); ++l)
        error_bar(l, layers_[l], l == 0 ? "emb." : std::to_string(l - 1));
    error_bar(layers_.size(), last_, "last");
    const double top = 60 + height + gap;
    if (!forests_.empty()) svg += label(20, top - 16, "share of equal leaves, by block", "start");
    for (size_t f = 0; f < forests_.size(); ++f)
        svg += bar(f, top, forests_[f].share(), std::to_string(forests_[f].block),
                   number("%.3f", forests_[f].share()), "#47a");
    return svg + "</svg>\n";
}

}  // namespace espalier
