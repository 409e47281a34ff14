#!/bin/sh
# Usage: isa_symbols.sh OBJECT…   (the object files of kernels/; others are skipped)
#
# An object that is compiled for AVX2, AVX-512 or NEON with DotProd, I8MM or BF16 must define no function that the linker may merge
# with another object's of the same name: if it kept the wide copy, a machine without those instructions would run it.
# Weak (W, V) and unique (u) symbols are such; the personality reference carries no code of ours, and xsimd's casts
# for NEON hold one instruction, the return.
set -eu

checked=0
found=0
for object in "$@"; do
    case $(basename "$object") in
        *_avx2.cpp.o | *_avx512*.cpp.o | *_neondot.cpp.o | *_neoni8mm.cpp.o | *_neonbf16.cpp.o) ;;
        *) continue ;;
    esac
    checked=$((checked + 1))
    shared=$("${NM:-nm}" --defined-only --demangle "$object" | grep -E '^[0-9a-fA-F]* [WVu] ' |
        grep -vE 'DW\.ref\.__gxx_personality_v0|xsimd::kernel::wrap::vreinterpretq_' || true)
    if [ -n "$shared" ]; then
        found=$((found + 1))
        echo "$(basename "$object"): symbols that other objects can pick up:"
        echo "$shared"
    fi
done
if [ "$checked" -eq 0 ]; then
    echo "isa_symbols: no object of one instruction set among the $# given" >&2
    exit 2
fi
echo "isa_symbols: $checked objects checked, $found with shared symbols"
[ "$found" -eq 0 ]
