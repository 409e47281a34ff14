# Kernels of every instruction set against double precision.
espalier_test(kernels/activation_test.cpp)
espalier_test(kernels/attention_test.cpp)
espalier_test(kernels/cached_attention_test.cpp)
espalier_test(kernels/dense_low_precision_test.cpp)
espalier_test(kernels/dense_native_test.cpp)
espalier_test(kernels/dense_onednn_test.cpp)
espalier_test(kernels/forest_edge_test.cpp)
espalier_test(kernels/forest_reference_test.cpp)
espalier_test(kernels/leaf_forest_types_test.cpp)
espalier_test(kernels/neuron_forest_types_test.cpp)
espalier_test(kernels/norm_test.cpp)
espalier_test(kernels/rotate_test.cpp)
espalier_test(kernels/number_types_test.cpp)

# oneDNN's cap is the process's: each instruction set needs a run of its own.
if(ESPALIER_ONEDNN AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    add_test(NAME dense_onednn_test_avx2 COMMAND dense_onednn_test)
    set_tests_properties(dense_onednn_test_avx2 PROPERTIES ENVIRONMENT ESPALIER_ISA=avx2 SKIP_RETURN_CODE 77 TIMEOUT 600)
endif()

# QEMU emulates all extensions; the same kernels on a core of ARMv8.0 that has none: other 8-bit kernels, and no instruction
# that it lacks anywhere.
if(CMAKE_CROSSCOMPILING_EMULATOR MATCHES "qemu-aarch64")
    foreach(name dense_native_test leaf_forest_types_test neuron_forest_types_test number_types_test)
        add_test(NAME ${name}_a53 COMMAND ${name})
        set_tests_properties(${name}_a53 PROPERTIES ENVIRONMENT QEMU_CPU=cortex-a53 TIMEOUT 600)
    endforeach()
endif()

# Our own dense kernels (the other cases need oneDNN) with each extension left out: those behind it in line.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(extensions i8mm bf16 i8mm,dotprod)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(extensions vnni bf16)
endif()
foreach(extension IN LISTS extensions)
    string(REPLACE "," "_" suffix ${extension})
    add_test(NAME dense_low_precision_test_without_${suffix}
        COMMAND dense_low_precision_test "--test-case-exclude=oneDNN*,a row of zeros*,what a backend lacks*")
    set_tests_properties(dense_low_precision_test_without_${suffix} PROPERTIES ENVIRONMENT ESPALIER_WITHOUT=${extension} TIMEOUT 600)
endforeach()
# Leaves on quads, where a processor with I8MM takes matrices.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND ESPALIER_MATRIX_PRODUCTS)
    add_test(NAME leaf_forest_types_test_without_i8mm COMMAND leaf_forest_types_test)
    set_tests_properties(leaf_forest_types_test_without_i8mm PROPERTIES ENVIRONMENT ESPALIER_WITHOUT=i8mm TIMEOUT 600)
endif()
if(CMAKE_CROSSCOMPILING_EMULATOR MATCHES "qemu-aarch64")
    add_test(NAME dense_low_precision_test_a53
        COMMAND dense_low_precision_test "--test-case-exclude=oneDNN*,a row of zeros*,what a backend lacks*")
    set_tests_properties(dense_low_precision_test_a53 PROPERTIES ENVIRONMENT QEMU_CPU=cortex-a53 TIMEOUT 600)
endif()

# Instructions that not every processor has must stay in their own files.
if(NOT ESPALIER_SANITIZE AND (CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" OR
                              (ESPALIER_DOTPROD AND CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")))
    add_test(NAME isa_symbols COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/scripts/isa_symbols.sh
        $<TARGET_OBJECTS:espalier_kernels> COMMAND_EXPAND_LISTS)
    set_tests_properties(isa_symbols PROPERTIES ENVIRONMENT NM=${CMAKE_NM} TIMEOUT 60)
endif()
