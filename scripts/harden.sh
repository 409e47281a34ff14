#!/usr/bin/env bash
# The long forms of what ./check does for seconds:  scripts/harden.sh [HOURS [OUT]]
# Fuzzing of every target for HOURS (1) on all cores, every mutation of every directory, the shipped model's too, 200
# killed conversions, 5,000 random models, threads under the thread sanitizer, a soak of half an hour. What it found and
# printed goes to OUT (build-harden); exit status 1: something was found.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/packages.sh
require_packages "${build_packages[@]}" "${check_packages[@]}"
hours=${1:-1} out=${2:-build-harden} cores=$(nproc) status=0
mkdir -p "$out"

build() { # PRESET TARGET...
    local preset=$1
    shift
    cmake --preset "$preset" >/dev/null && cmake --build --preset "$preset" --target "$@" >/dev/null
}
step() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s ==\n' "$name"
    "$@" 2>&1 | tee "$out/$name.txt" | tail -20
    [ "${PIPESTATUS[0]}" -eq 0 ] || { status=1; echo "$name: see $out/$name.txt"; }
}

build fuzz fuzzers mutate && build-fuzz/bin/fuzz_seeds build-fuzz/tests/fuzz/corpus || exit 2
seconds=$(awk "BEGIN {printf \"%d\", $hours * 3600}")
step fuzzing scripts/fuzz.sh "$seconds" "$cores" "$out/fuzzing"
step mutations build-fuzz/bin/mutate --jobs "$cores" models/minilm-trees.esp

build release mutate numbers kill_test soak espalier_command || exit 2
step mutations-release build/bin/mutate --jobs "$cores" models/minilm-trees.esp
step kills build/bin/kill_test 200
step numbers build/bin/numbers --models 5000
step without-vnni tests/scripts/same_without_vnni.sh build/bin/numbers 1000

build tsan threads_test contexts_test soak || exit 2
step threads ctest --preset tsan
step threads-soak scripts/tsan.sh build-tsan/bin/soak 60 8

step soak build/bin/soak 1800 8 models/minilm-trees.esp
exit $status
