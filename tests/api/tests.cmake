# The C API and its C++ wrapper.
add_library(espalier_api_models STATIC api/models.cpp)
target_link_libraries(espalier_api_models PUBLIC espalier_inside)

# Plain C99 with its own main, as a C program would use the library.
function(espalier_c_test name)
    add_executable(${name} api/${name}.c)
    target_link_libraries(${name} PRIVATE espalier_api_models m)
    target_compile_options(${name} PRIVATE -std=c99 -pedantic -Wno-declaration-after-statement)
    # aligned_alloc is of C11; glibc shows it when asked.
    target_compile_definitions(${name} PRIVATE _ISOC11_SOURCE)
    set_target_properties(${name} PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
    add_test(NAME ${name} COMMAND ${name} ${ARGN})
    set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endfunction()

set(backends native)
if(ESPALIER_ONEDNN AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND backends onednn)
endif()
espalier_c_test(api_c_test)
espalier_c_test(api_options_test ${PROJECT_BINARY_DIR}/tests/api_options_test.esp)
espalier_c_test(api_memory_test ${backends})

foreach(name allocations_test decoder_api_test forest_api_test resident_memory_test threads_test wrapper_test)
    espalier_test(api/${name}.cpp)
    target_link_libraries(${name} PRIVATE espalier_api_models)
endforeach()

espalier_watch_malloc(allocations_test)

include(consumer/tests.cmake)
