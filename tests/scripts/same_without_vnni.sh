#!/usr/bin/env bash
# The 8-bit answers of $2 random models, by tests/harden/numbers.cpp ($1), with VNNI and without it.
set -euo pipefail
with=$(${3:-} "$1" --answers "$2")
without=$(ESPALIER_WITHOUT=vnni ${3:-} "$1" --answers "$2")
printf 'with VNNI:    %s\nwithout VNNI: %s\n' "$with" "$without"
[ "$with" = "$without" ]
