#!/usr/bin/env bash
# The 8-bit answers of $2 random models, by tests/harden/numbers.cpp ($1; $3: its emulator), with the processor's 8-bit
# extensions (VNNI; Arm's DotProd and I8MM) and without them.
set -euo pipefail
with=$(${3:-} "$1" --answers "$2")
without=$(ESPALIER_WITHOUT=vnni,dotprod,i8mm ${3:-} "$1" --answers "$2")
printf 'with extensions:    %s\nwithout extensions: %s\n' "$with" "$without"
[ "$with" = "$without" ]
