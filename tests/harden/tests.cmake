# What must not break: spoilt files, failing memory and files, killed programs, threads, long runs.
# Programs that run for as long as they are told (scripts/harden.sh); ctest runs each for a moment.
add_executable(mutate harden/mutate.cpp harden/malloc_watch.cpp)
target_link_libraries(mutate PRIVATE espalier_inside)
add_test(NAME mutate COMMAND mutate --files 3000 --jobs 2)
set_tests_properties(mutate PROPERTIES TIMEOUT 300)
