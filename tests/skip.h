// Tests that need what a plain checkout lacks (../shared, a GPU) say so and are shown as skipped.
#pragma once

namespace espalier::test {

// Marks the whole executable as skipped (exit status 77): keep such cases in files of their own.
void skip(const char* why);

}  // namespace espalier::test
