# Micro-benchmarks beside the kernels, in one program: build/bin/kernel_bench --benchmark_filter=leaf
find_package(benchmark REQUIRED)
add_executable(kernel_bench activation/activation_bench.cpp attention/attention_bench.cpp dense/dense_bench.cpp
    forest/forest_bench.cpp norm/norm_bench.cpp)
target_link_libraries(kernel_bench PRIVATE espalier_inside benchmark::benchmark_main)
