#!/usr/bin/env bash
# clang-tidy over our sources (of the SIMD files, which are one source, the AVX2 form), by the compile commands in the build folder $1. Silent where all is well.
# What needs CUDA's headers is left out: the build folder need not have them.
# One file a process: version 14 carries the state of its va_list check over to the next file, and errs.
set -euo pipefail
git ls-files '*.cpp' | grep -vE '_(neon[a-z0-9]*|avx512[a-z0-9_]*)\.cpp$|^tests/|^python/|_bench\.cpp$|/cuda/' |
    xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$1" --warnings-as-errors='*' 2> >(grep -vE 'warnings? generated|Suppressed|Use -header-filter|^$' >&2)
