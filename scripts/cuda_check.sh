#!/usr/bin/env bash
# What of the CUDA backend needs a GPU, in one go:  scripts/cuda_check.sh [BUILD_FOLDER]
# Builds (the preset "cuda", unless a build is named), runs tests/cuda, then every test case of
# encoder_cuda_test under compute-sanitizer, side by side: memcheck as it stands, racecheck with fewer tokens
# and models (ESPALIER_BRIEF_TESTS), since it looks at every access to shared memory. Prints a line a case.
# JOBS: processes at once. LIMIT: seconds a case. LOGS: where what they print is kept.
set -u
cd "$(dirname "$0")/.." || exit 1
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || { echo "skipped: no GPU here"; exit 0; }
if [ $# -eq 0 ]; then
    . scripts/cuda_compiler.sh
    require_cuda_compiler || { echo "no nvcc and none from PyPI" >&2; exit 1; }
    cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=native >/dev/null &&
        cmake --build --preset cuda --target encoder_cuda_test lost_device_test device_test || exit 1
fi
build=${1:-build-cuda}
jobs=${JOBS:-$(nproc)} limit=${LIMIT:-3600} logs=${LOGS:-$(mktemp -d)}
tests=$build/tests/encoder_cuda_test
failed=0

for test in encoder_cuda_test lost_device_test device_test; do
    "$build/tests/$test" >"$logs/$test.txt" 2>&1 || failed=1
    grep -h '^\[doctest\] \(test cases\|assertions\)' "$logs/$test.txt" | sed "s/^\[doctest\]/$test:/"
done
command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer: memcheck and racecheck are skipped"; exit $failed; }

# One case under one tool. A comma parts patterns of doctest.
sanitize() {
    local tool=$1 name=$2 start=$SECONDS result
    local log="$logs/$tool-${name//[^a-z0-9]/_}.txt"
    # A cudaMalloc that fails is what some cases ask for: what the API answers is theirs to look at.
    local options=(--tool "$tool" --print-limit 20)
    [ "$tool" = racecheck ] || options+=(--report-api-errors no)
    [ "$tool" = memcheck ] || export ESPALIER_BRIEF_TESTS=1
    OMP_NUM_THREADS=1 timeout "$limit" compute-sanitizer "${options[@]}" --error-exitcode 9 "$tests" --test-case="${name//,/?}" >"$log" 2>&1
    result=$?
    case $result in
        0) result=clean ;;
        124) result="NOT DONE in $limit s" ;;
        *) result="FAILED ($result), see $log" ;;
    esac
    printf '%s\t%s\t%d s\t%s\t%s\n' "$tool" "$result" $((SECONDS - start)) "$name" "$(grep -h 'SUMMARY' "$log" | tail -1)"
    [ "$result" = clean ]
}
export -f sanitize
export tests limit logs

# The case that takes a GPU's memory runs when no other does.
cases=$("$tests" --list-test-cases | grep -v '^\[doctest\]\|^===')
alone=$(grep 'memory is taken' <<<"$cases")
for tool in memcheck racecheck; do
    grep -v 'memory is taken' <<<"$cases" | xargs -d '\n' -P "$jobs" -I{} bash -c 'sanitize "$@"' _ $tool {} || failed=1
done
sanitize memcheck "$alone" || failed=1
[ $failed -eq 0 ] && echo "all clean"
exit $failed
