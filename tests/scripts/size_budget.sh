#!/usr/bin/env bash
# Holds a device build against tests/size_budget.txt:  size_budget.sh BUILD
# STRIP and SIZE are the toolchain's (aarch64-linux-gnu-strip, …). Prints what everything weighs; fails where it is too much.
set -euo pipefail
build=$1
budget=$(dirname "$0")/../size_budget.txt
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT

weight() {
    case $1 in
        library_text) "$SIZE" -A "$build/runtime/libespalier.a" | awk '
            $1 ~ /^\.text/ { sum += $2 }
            END { print sum + 0 }' ;;
        *) "$STRIP" -o "$stripped" "$build/bin/$1" && stat -c %s "$stripped" ;;
    esac
}

over=0 checked=0
while read -r name limit _; do
    case $name in '' | '#'*) continue ;; esac
    bytes=$(weight "$name")
    verdict=ok
    if [ "$bytes" -le 0 ] || [ "$bytes" -gt "$limit" ]; then
        verdict="TOO LARGE"
        over=1
    fi
    checked=$((checked + 1))
    printf '%-16s %9d of at most %9d bytes  %s\n' "$name" "$bytes" "$limit" "$verdict"
done <"$budget"
[ "$checked" -gt 0 ] || { echo "$budget holds no limits" >&2; exit 1; }
exit $over
