// What a measurement was taken on: processor, caches, clock, memory, system, compiler.
#pragma once

#include <string>

#include "apps/describe.h"

namespace espalier {

// Read from `root`/proc, /sys and /etc; what is not found there is left out. root: of tests.
Json describe_machine(const std::string& root = "");
// The first line of /proc/loadavg; "" where there is none.
std::string load_average(const std::string& root = "");
// Of this program: version, commit, compiler, instruction sets that run here.
Json describe_build();

}  // namespace espalier
