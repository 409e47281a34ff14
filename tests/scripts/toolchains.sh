#!/usr/bin/env bash
# What can be said of the toolchain files whose compilers or boards are not at hand; needs Debian's cross compiler for arm64.
#   android-arm64   without an NDK one clear line; with a stand-in for one, what the file asks of it
#   jetson-orin     configures with Debian's packages, and compiles for the board's core
set -euo pipefail
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "toolchains: $*" >&2; exit 1; }
configure() { # PRESET OPTION...
    cmake -S "$source" -B "$work/$1" --preset "$1" "${@:2}" >"$work/$1.txt" 2>&1
}

if ANDROID_NDK='' configure android-arm64; then fail "android-arm64 configured without an NDK"; fi
grep -q "ANDROID_NDK: expected the folder of an Android NDK, found ''" "$work/android-arm64.txt" ||
    fail "android-arm64 without an NDK says: $(grep -v '^ *$' "$work/android-arm64.txt")"

# The stand-in knows what an NDK's file is told, and then compiles for Debian.
rm -rf "$work/android-arm64"
mkdir -p "$work/ndk/build/cmake"
cat >"$work/ndk/build/cmake/android.toolchain.cmake" <<END
if(NOT "\${ANDROID_ABI} \${ANDROID_PLATFORM} \${ANDROID_STL}" STREQUAL "arm64-v8a android-24 c++_static")
    message(FATAL_ERROR "asked for '\${ANDROID_ABI} \${ANDROID_PLATFORM} \${ANDROID_STL}'")
endif()
include($source/toolchains/aarch64-linux-gnu.cmake)
END
ANDROID_NDK=$work/ndk configure android-arm64 || fail "android-arm64 with a stand-in: $(cat "$work/android-arm64.txt")"
grep -q 'gemm_neon.cpp' "$work/android-arm64/build.ninja" || fail "android-arm64: no kernels for NEON"
grep -q 'libespalier.so' "$work/android-arm64/build.ninja" || fail "android-arm64: no shared library"

configure jetson-orin || fail "jetson-orin: $(cat "$work/jetson-orin.txt")"
cmake --build "$work/jetson-orin" --target kernels/CMakeFiles/espalier_kernels.dir/norm/norm_neon.cpp.o --verbose >"$work/built.txt" ||
    fail "jetson-orin: $(cat "$work/built.txt")"
grep -q -- '-march=armv8.2-a+dotprod+fp16 -mtune=cortex-a78ae' "$work/built.txt" || fail "jetson-orin: not compiled for its core"
echo "toolchains: android-arm64 (stand-in for an NDK, configured), jetson-orin (configured, one file compiled)"
