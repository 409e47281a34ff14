# 64-bit Arm Linux by Debian's cross compiler (g++-aarch64-linux-gnu). ARMv8.0-A: what every 64-bit Arm core has.
# Libraries come from Debian's arm64 packages (dpkg --add-architecture arm64; libutf8proc-dev:arm64), programs that are
# built run under QEMU (qemu-user-static), so ctest works as on the device.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_FLAGS_INIT -march=armv8-a)
set(CMAKE_CXX_FLAGS_INIT -march=armv8-a)
# -L: where the loader of the emulated program finds its libraries.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
