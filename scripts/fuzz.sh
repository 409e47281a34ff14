#!/usr/bin/env bash
# Fuzzes every target side by side and sums up.
#
#   scripts/fuzz.sh SECONDS CORES OUT [BIN [SEEDS [SOURCE]]]
#
# BIN holds *_fuzzer, SEEDS a corpus a target (bin/fuzz_seeds makes it), SOURCE dictionaries and cases (tests/fuzz).
# OUT gets summary.txt, what was found (artifacts/), corpora and logs. FUZZ_RUNNER is put in front of each program.
# One process a target at least, more for those that see most of the code; those of a target share its corpus. A
# process that finds something is started again until the time is over. Exit status 1: something was found.
set -uo pipefail
seconds=$1 cores=$2 out=$3 bin=${4:-build-fuzz/bin} seeds=${5:-build-fuzz/tests/fuzz/corpus} source=${6:-tests/fuzz}
targets=(reader capi checkpoint llama2c safetensors wordpiece bpe tsv)
more=(reader capi checkpoint reader bpe capi reader checkpoint)  # what further cores do, again and again
declare -A max_length=([reader]=65536 [capi]=4096 [checkpoint]=16384 [llama2c]=16384 [safetensors]=16384
    [wordpiece]=4096 [bpe]=4096 [tsv]=4096)
mkdir -p "$out/artifacts" "$out/logs" "$out/corpus"
end=$((SECONDS + seconds))
# Inputs that are files are written and read back.
[ -d /dev/shm ] && [ -w /dev/shm ] && export TMPDIR=/dev/shm

fuzz() { # TARGET NUMBER
    local target=$1 log=$out/logs/$1-$2.log folders=() left
    [ ! -d "$source/cases/$target" ] || folders+=("$source/cases/$target")
    [ ! -e "$source/$target.dict" ] || folders+=("-dict=$source/$target.dict")
    while left=$((end - SECONDS)) && [ "$left" -gt 0 ]; do
        ${FUZZ_RUNNER:-} "$bin/${target}_fuzzer" -max_total_time="$left" -max_len="${max_length[$target]}" -timeout=10 \
            -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 -seed="$((RANDOM + $2))" -reload=30 \
            -artifact_prefix="$out/artifacts/$target-" "$out/corpus/$target" "$seeds/$target" "${folders[@]}" >>"$log" 2>&1
        echo "ended with $?" >>"$log"
        # Logs of one that keeps finding things must not fill the disc.
        [ "$(stat -c %s "$log")" -lt 2000000 ] || break
    done
}

number=0
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target"
    fuzz "$target" "$number" &
    number=$((number + 1))
done
while [ "$number" -lt "$cores" ]; do
    fuzz "${more[$(((number - 8) % 8))]}" "$number" &
    number=$((number + 1))
done
wait

{
    printf '%-12s %14s %8s %8s %8s\n' target executions edges features findings
    for target in "${targets[@]}"; do
        executions=$(cat "$out/logs/$target"-*.log | awk '/^stat::number_of_executed_units/ {n += $2} END {printf "%d", n}')
        # Edges and features of all that was kept, counted at once.
        folders=("$out/corpus/$target" "$seeds/$target")
        [ ! -d "$source/cases/$target" ] || folders+=("$source/cases/$target")
        reached=$(${FUZZ_RUNNER:-} "$bin/${target}_fuzzer" -runs=0 -max_len="${max_length[$target]}" \
            -artifact_prefix="$out/artifacts/$target-" "${folders[@]}" 2>&1 |
            awk '/INITED|DONE/ {for (i = 1; i < NF; ++i) {if ($i == "cov:") c = $(i + 1); if ($i == "ft:") f = $(i + 1)}} END {print c + 0, f + 0}')
        found=$(find "$out/artifacts" -name "$target-*" | wc -l)
        printf '%-12s %14s %8s %8s %8s\n' "$target" "$executions" ${reached} "$found"
    done
    printf '%d processes of %d s each: %.2f hours of processor time asked for\n' "$number" "$seconds" \
        "$(awk "BEGIN {n = $number < $cores ? $number : $cores; print n * $seconds / 3600}")"
} | tee "$out/summary.txt"
[ -z "$(ls "$out/artifacts")" ]
