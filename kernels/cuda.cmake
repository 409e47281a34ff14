# Kernels for CUDA devices. nvcc takes none of our warning flags; host code that calls them does.
find_path(ESPALIER_CUBLAS_INCLUDE cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} REQUIRED)

add_library(espalier_cuda_headers INTERFACE)
target_include_directories(espalier_cuda_headers SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${ESPALIER_CUBLAS_INCLUDE})

add_library(espalier_cuda OBJECT cuda/attention.cu cuda/attention_products.cu cuda/byte_attention.cu cuda/byte_forests.cu cuda/byte_products.cu cuda/cached_attention.cu cuda/leaf_forest.cu cuda/leaf_products.cu cuda/neuron_forest.cu cuda/newest_attention.cu cuda/one_row.cu cuda/rows.cu cuda/tensor_steps.cu cuda/two_steps.cu
    cuda/walk.cu cuda/dense.cpp cuda/device.cpp)
set_target_properties(espalier_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CXX_STANDARD 20
    CUDA_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden)
target_include_directories(espalier_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_options(espalier_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow>)
target_link_libraries(espalier_cuda PRIVATE espalier_cuda_headers)
