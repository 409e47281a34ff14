// A dependency matrix as an SVG picture.
#pragma once

#include <string>

#include "apps/fuse/analysis.h"

namespace espalier {

// Rows: the block removed; columns: the block that looks at it; dark: depends on it. `title` may hold any
// text.
std::string heat_map(const Analysis& analysis, const std::string& title);

}  // namespace espalier
