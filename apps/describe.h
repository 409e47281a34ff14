// A model in words and numbers, as `inspect` shows it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "runtime/model.h"

namespace espalier {

// Keys keep the order in which they are written.
using Json = nlohmann::ordered_json;

Json describe(const Model& model);

// One line. Invalid UTF-8 in strings is replaced, never an error.
std::string json_text(const Json& value);

}  // namespace espalier
