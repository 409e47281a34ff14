# What all of our targets share, as one interface target.

function(espalier_common_options)
    add_library(espalier_options INTERFACE)
    target_compile_features(espalier_options INTERFACE cxx_std_20 c_std_99)
    target_include_directories(espalier_options INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/runtime/include)
    target_compile_options(espalier_options INTERFACE
        -Wall -Wextra -Wshadow $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>  # GCC bug 105651: std::string false alarms
        # Each function and table for itself, so that a program that is linked with --gc-sections holds what it calls.
        -ffunction-sections -fdata-sections
        -fvisibility=hidden $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>
        # No contraction: the scalar kernels are the specification, and must round alike on every compiler.
        -ffp-contract=off)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|i[3-6]86")
        target_compile_definitions(espalier_options INTERFACE ESPALIER_X86)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|armv7")
        target_compile_definitions(espalier_options INTERFACE ESPALIER_NEON)
    endif()
    if(ESPALIER_THREADS)
        target_compile_definitions(espalier_options INTERFACE ESPALIER_THREADS)
        target_link_libraries(espalier_options INTERFACE OpenMP::OpenMP_CXX)
    endif()
    if(ESPALIER_SANITIZE)
        target_compile_options(espalier_options INTERFACE -fsanitize=${ESPALIER_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
        target_link_options(espalier_options INTERFACE -fsanitize=${ESPALIER_SANITIZE})
    endif()
endfunction()

# An object library of one folder; all of them together are the library `espalier`.
function(espalier_objects name)
    add_library(${name} OBJECT ${ARGN})
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_link_libraries(${name} PRIVATE espalier_options)
endfunction()
