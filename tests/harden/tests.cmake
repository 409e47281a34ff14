# What must not break: spoilt files, failing memory and files, killed programs, threads, long runs.
# Programs that run for as long as they are told (scripts/harden.sh); ctest runs each for a moment.
add_executable(mutate harden/mutate.cpp harden/malloc_watch.cpp)
target_link_libraries(mutate PRIVATE espalier_inside)
add_test(NAME mutate COMMAND mutate --files 3000 --jobs 2)
set_tests_properties(mutate PROPERTIES TIMEOUT 300)

add_executable(soak harden/soak.cpp)
target_link_libraries(soak PRIVATE espalier_api_models)
add_test(NAME soak COMMAND soak 10 8 ${PROJECT_SOURCE_DIR}/models/minilm-trees.esp)
set_tests_properties(soak PROPERTIES TIMEOUT 120)

if(ESPALIER_APPS)
    espalier_test(harden/faults_test.cpp)
    target_sources(faults_test PRIVATE harden/malloc_watch.cpp)
    add_executable(kill_test harden/kill_test.cpp)
    target_link_libraries(kill_test PRIVATE espalier_apps)
    target_compile_definitions(kill_test PRIVATE ESPALIER_COMMAND="$<TARGET_FILE:espalier_command>")
    add_test(NAME kill_test COMMAND kill_test)
    set_tests_properties(kill_test PROPERTIES TIMEOUT 300)
endif()
