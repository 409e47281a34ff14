# 64-bit Arm Linux by Debian's cross compiler (g++-aarch64-linux-gnu). ARMv8.0-A: what every 64-bit Arm core has.
# Libraries come from Debian's arm64 packages, programs that are built run under QEMU, so ctest works as on the device:
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install g++-aarch64-linux-gnu qemu-user-static libxsimd-dev:arm64 libstdc++6:arm64 libgomp1:arm64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_C_FLAGS_INIT -march=armv8-a)
set(CMAKE_CXX_FLAGS_INIT -march=armv8-a)
# Without -L /usr/aarch64-linux-gnu: the loader there is of another build than libc6:arm64, which comes with the libraries
# above, and the two together hang when a thread is made.
find_program(ESPALIER_QEMU qemu-aarch64-static REQUIRED)
set(CMAKE_CROSSCOMPILING_EMULATOR ${ESPALIER_QEMU})
