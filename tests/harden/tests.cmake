# What must not break: spoilt files, failing memory and files, killed programs, threads, long runs.
# Programs that run for as long as they are told (scripts/harden.sh); ctest runs each for a moment.
if(ESPALIER_SANITIZE OR CMAKE_CROSSCOMPILING)
    set(mutations 500)
    set(models 4)
else()
    set(mutations 3000)
    set(models 25)
endif()

add_executable(mutate harden/mutate.cpp)
espalier_watch_malloc(mutate)
target_link_libraries(mutate PRIVATE espalier_inside)
add_test(NAME mutate COMMAND mutate --files ${mutations} --jobs 2)

add_executable(numbers harden/numbers.cpp)
target_link_libraries(numbers PRIVATE espalier_inside)
add_test(NAME numbers COMMAND numbers --models ${models})
# 8-bit answers of whole models are the same bits with products of quads and without.
add_test(NAME numbers_without_vnni COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/scripts/same_without_vnni.sh
         $<TARGET_FILE:numbers> ${models} ${CMAKE_CROSSCOMPILING_EMULATOR})
set_tests_properties(mutate numbers numbers_without_vnni PROPERTIES TIMEOUT 600)

add_executable(soak harden/soak.cpp)
target_link_libraries(soak PRIVATE espalier_api_models)
# A sanitizer keeps what was freed, and an emulator's memory is its own.
if(ESPALIER_THREADS AND NOT ESPALIER_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
    add_test(NAME soak COMMAND soak 10 8 ${PROJECT_SOURCE_DIR}/models/minilm-trees.esp)
    set_tests_properties(soak PROPERTIES TIMEOUT 120)
endif()

espalier_test(harden/contexts_test.cpp)
target_link_libraries(contexts_test PRIVATE espalier_api_models)

if(ESPALIER_APPS)
    espalier_test(harden/faults_test.cpp)
    espalier_watch_malloc(faults_test)
    add_executable(kill_test harden/kill_test.cpp)
    target_link_libraries(kill_test PRIVATE espalier_apps)
    target_compile_definitions(kill_test PRIVATE ESPALIER_COMMAND="$<TARGET_FILE:espalier_command>")
    if(NOT CMAKE_CROSSCOMPILING)
        add_test(NAME kill_test COMMAND kill_test)
        set_tests_properties(kill_test PROPERTIES TIMEOUT 300)
        file(GLOB documents ${PROJECT_SOURCE_DIR}/docs/*.md)
        add_test(NAME docs_match_help COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/scripts/docs_match_help.py
                 $<TARGET_FILE:espalier_command> ${PROJECT_SOURCE_DIR}/README.md ${PROJECT_SOURCE_DIR}/models/README.md ${documents})
    endif()
endif()
