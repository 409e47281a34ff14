#!/usr/bin/env bash
# Which lines of model_format and runtime the tests run:  scripts/coverage.sh [LEAST]
# By the tests that need no checkpoint and no command. Prints the share of each file and of both folders; exit status 1 where one has less than LEAST per cent (90).
set -euo pipefail
cd "$(dirname "$0")/.."
least=${1:-90}
llvm=$(dirname "$(readlink -f "$(command -v clang++)")")
tests=(api_c_test api_options_test api_memory_test allocations_test decoder_api_test threads_test wrapper_test contexts_test
    mutate numbers format_test packed_test writer_test checks_test corruption_test decoder_corruption_test
    bpe_test decoder_test wordpiece_test huge_pages_test denormals_test shipped_test)
cmake --preset coverage >/dev/null
cmake --build build-coverage --target "${tests[@]}" >/dev/null
rm -rf build-coverage/profiles
pattern=$(IFS='|'; echo "${tests[*]}")
LLVM_PROFILE_FILE=$PWD/build-coverage/profiles/%p-%m.profraw ctest --test-dir build-coverage -j "$(nproc)" -R "^($pattern)\$" >/dev/null ||
    echo "some tests failed: ctest --test-dir build-coverage says which" >&2
"$llvm/llvm-profdata" merge -sparse -o build-coverage/all.profdata build-coverage/profiles
objects=()
for name in "${tests[@]}"; do
    for place in build-coverage/tests/$name build-coverage/bin/$name; do
        [ ! -x "$place" ] || objects+=(-object "$place")
    done
done
"$llvm/llvm-cov" export -format=lcov -instr-profile=build-coverage/all.profdata "${objects[@]:1}" model_format runtime |
    awk -v least="$least" '
        /^SF:/ {file = substr($0, 4); sub(/.*\/(model_format|runtime)\//, "", file); folder = $0 ~ /\/runtime\// ? "runtime" : "model_format"}
        /^LF:/ {lines = substr($0, 4)}
        /^LH:/ {hit = substr($0, 4)}
        /^end_of_record/ {all[folder] += lines; run[folder] += hit; if (lines > 0) printf "%6.1f %%  %s/%s\n", 100 * hit / lines, folder, file}
        END {
            for (f in all) {
                share = 100 * run[f] / all[f]
                printf "%6.1f %% of %d lines of %s\n", share, all[f], f
                if (share < least) bad = 1
            }
            exit bad
        }'
