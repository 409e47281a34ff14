#!/usr/bin/env bash
# What of the CUDA backend needs a GPU, in one go:  scripts/cuda_check.sh [BUILD_FOLDER]
# Builds (the preset "cuda", unless a build is named), runs tests/cuda, then every test case of
# encoder_cuda_test and decoder_cuda_test under compute-sanitizer, side by side: memcheck as it stands,
# racecheck with fewer tokens and models (ESPALIER_BRIEF_TESTS), since it looks at every access to shared
# memory. Prints a line a case.
# JOBS: processes at once. LIMIT: seconds a case. LOGS: where what they print is kept.
set -u
cd "$(dirname "$0")/.." || exit 1
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || { echo "skipped: no GPU here"; exit 0; }
if [ $# -eq 0 ]; then
    . scripts/cuda_compiler.sh
    require_cuda_compiler || { echo "no nvcc and none from PyPI" >&2; exit 1; }
    cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=native >/dev/null &&
        cmake --build --preset cuda --target encoder_cuda_test decoder_cuda_test lost_device_test device_test || exit 1
fi
build=${1:-build-cuda}
jobs=${JOBS:-$(nproc)} limit=${LIMIT:-3600} logs=${LOGS:-$(mktemp -d)}
failed=0

for test in encoder_cuda_test decoder_cuda_test lost_device_test device_test; do
    "$build/tests/$test" >"$logs/$test.txt" 2>&1 || failed=1
    grep -h '^\[doctest\] \(test cases\|assertions\)' "$logs/$test.txt" | sed "s/^\[doctest\]/$test:/"
done
command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer: memcheck and racecheck are skipped"; exit $failed; }

# One case under one tool. A comma parts patterns of doctest. Hazards that racecheck sees within cuBLAS's own
# kernels, which wait for copies in ways that it does not know, are counted and no failure; kernels cannot be
# left out, since the sanitizer then fails.
sanitize() {
    local tool=$1 program=$2 name=$3 start=$SECONDS status result=clean theirs
    local log="$logs/$tool-$program-${name//[^A-Za-z0-9]/_}.txt"
    # A cudaMalloc that fails is what some cases ask for: what the API answers is theirs to look at.
    local options=(--tool "$tool" --print-limit 1000)
    [ "$tool" = racecheck ] || options+=(--report-api-errors no --error-exitcode 9)
    [ "$tool" = memcheck ] || export ESPALIER_BRIEF_TESTS=1
    timeout "$limit" compute-sanitizer "${options[@]}" "$build/tests/$program" --test-case="${name//,/?}" >"$log" 2>&1
    status=$?
    theirs=$(grep 'Race reported' "$log" | grep -vc espalier)
    if [ $status -eq 124 ]; then
        result="NOT DONE in $limit s"
    elif [ $status -ne 0 ] || ! grep -q 'SUMMARY' "$log" || grep -q 'Race reported.*espalier\|Sanitizer Error' "$log"; then
        result="FAILED ($status), see $log"
    fi
    printf '%s\t%s\t%d s\t%s\t%s\t%s\n' "$tool" "$result" $((SECONDS - start)) "$program" "$name" "$([ "$theirs" -eq 0 ] || echo "$theirs in cuBLAS's kernels")"
    [ "$result" = clean ]
}
export -f sanitize
export build limit logs

cases() {
    "$build/tests/$1" --list-test-cases | grep -v '^\[doctest\]\|^===' | sed "s/^/$1\t/"
}
# The case that takes a GPU's memory runs when no other does.
all=$(cases encoder_cuda_test; cases decoder_cuda_test)
alone=$(grep 'memory is taken' <<<"$all" | cut -f 2)
for tool in memcheck racecheck; do
    grep -v 'memory is taken' <<<"$all" | tr '\t\n' '\0\0' | xargs -0 -n 2 -P "$jobs" bash -c 'sanitize "$@"' _ $tool || failed=1
done
sanitize memcheck encoder_cuda_test "$alone" || failed=1
[ $failed -eq 0 ] && echo "all clean"
exit $failed
