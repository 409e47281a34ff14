// Routes as one HTML page that needs nothing else: no network, no library.
#pragma once

#include <string>

#include "apps/describe.h"

namespace espalier {

// texts: what `routes --json` prints for each text; usage: its last line's. `title` may hold any text.
std::string routes_page(const Json& texts, const Json& usage, const std::string& title);

}  // namespace espalier
