# NVIDIA Jetson Orin (Cortex-A78AE, ARMv8.2-A), Ubuntu's libraries. As aarch64-linux-gnu.cmake, tuned for that core; all
# code, not only chosen kernels, may use dot products and half floats. JETSON_SYSROOT (environment or -D) names a copy of
# the board's root file system; without it Debian's arm64 packages serve, whose C library may be newer than the board's.
# With -DESPALIER_CUDA=ON for its GPU: CMAKE_CUDA_COMPILER names an nvcc of this machine, CUDAToolkit_ROOT the
# aarch64-linux target of the toolkit (headers, libcudart_static.a); docs/cuda.md. Neither configured, built nor run so far.
include(${CMAKE_CURRENT_LIST_DIR}/aarch64-linux-gnu.cmake)
set(CMAKE_C_FLAGS_INIT "-march=armv8.2-a+dotprod+fp16 -mtune=cortex-a78ae")
set(CMAKE_CXX_FLAGS_INIT "-march=armv8.2-a+dotprod+fp16 -mtune=cortex-a78ae")
if(NOT JETSON_SYSROOT)
    set(JETSON_SYSROOT $ENV{JETSON_SYSROOT})
endif()
if(JETSON_SYSROOT)
    set(CMAKE_SYSROOT ${JETSON_SYSROOT})
    set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
endif()
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
set(CMAKE_CUDA_ARCHITECTURES 87)
