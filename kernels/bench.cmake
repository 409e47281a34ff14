# Micro-benchmarks beside the kernels, in one program: build/bin/kernel_bench --benchmark_filter=leaf
find_package(benchmark REQUIRED)
add_executable(kernel_bench activation/activation_bench.cpp attention/attention_bench.cpp dense/dense_bench.cpp
    forest/forest_bench.cpp norm/norm_bench.cpp)
target_link_libraries(kernel_bench PRIVATE espalier_inside benchmark::benchmark_main)
# Our dense kernels against oneDNN's, in turns: build/bin/dense_compare
if(ESPALIER_ONEDNN)
    add_executable(dense_compare dense/dense_compare_bench.cpp)
    target_link_libraries(dense_compare PRIVATE espalier_inside benchmark::benchmark)
endif()
