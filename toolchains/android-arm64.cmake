# 64-bit Android by its NDK (r25 or later), whose folder ANDROID_NDK names in the environment or by -D. Android 7 (API 24)
# and later. xsimd and xxhash have no packages there: their headers and libraries are looked for in
# CMAKE_PREFIX_PATH. Not built here: no NDK was at hand.
if(NOT ANDROID_NDK)
    set(ANDROID_NDK $ENV{ANDROID_NDK})
endif()
if(NOT EXISTS "${ANDROID_NDK}/build/cmake/android.toolchain.cmake")
    message(FATAL_ERROR "ANDROID_NDK: expected the folder of an Android NDK, found '${ANDROID_NDK}'")
endif()
set(ANDROID_ABI arm64-v8a)
set(ANDROID_PLATFORM android-24)
set(ANDROID_STL c++_static)  # one library for the app to ship
# What is installed for the target lies in CMAKE_PREFIX_PATH, which the NDK's file does not look into.
list(APPEND CMAKE_FIND_ROOT_PATH ${CMAKE_PREFIX_PATH})
include(${ANDROID_NDK}/build/cmake/android.toolchain.cmake)
