# 32-bit Arm Linux, hard float, by Debian's cross compiler (g++-arm-linux-gnueabihf). ARMv7-A with NEON and VFPv4, which
# brings fused multiply-adds: Cortex-A5, A7, A12, A15, A17, and 64-bit cores in 32-bit mode; not A8 and A9.
# Libraries come from Debian's armhf packages, programs that are built run under QEMU:
#   dpkg --add-architecture armhf && apt-get update
#   apt-get install g++-arm-linux-gnueabihf qemu-user-static libxsimd-dev:armhf libstdc++6:armhf libgomp1:armhf
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR armv7)
set(CMAKE_C_COMPILER arm-linux-gnueabihf-gcc)
set(CMAKE_CXX_COMPILER arm-linux-gnueabihf-g++)
set(CMAKE_LIBRARY_ARCHITECTURE arm-linux-gnueabihf)
set(CMAKE_C_FLAGS_INIT "-march=armv7-a -mfpu=neon-vfpv4 -mfloat-abi=hard")
set(CMAKE_CXX_FLAGS_INIT "-march=armv7-a -mfpu=neon-vfpv4 -mfloat-abi=hard -Wno-psabi")
find_program(ESPALIER_QEMU qemu-arm-static REQUIRED)
set(CMAKE_CROSSCOMPILING_EMULATOR ${ESPALIER_QEMU})
