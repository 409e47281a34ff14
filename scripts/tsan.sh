#!/usr/bin/env bash
# Runs a program of the preset tsan: scripts/tsan.sh PROGRAM ARGUMENT...
# Clang's OpenMP tells the sanitizer, through the tool archer, who waits for whom; it is not built with it itself.
set -euo pipefail
library=$(dirname "$(readlink -f "$(command -v clang++)")")/../lib/libarcher.so
[ -e "$library" ] || { echo "expected $library (libomp-dev)" >&2; exit 2; }
export OMP_TOOL_LIBRARIES=$library TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1${TSAN_OPTIONS:+:$TSAN_OPTIONS}
exec "$@"
