# Compiled with ESPALIER_CUDA; skipped, and said so, where there is no GPU.
if(ESPALIER_CUDA)
    espalier_test(cuda/encoder_cuda_test.cpp)
    target_link_libraries(encoder_cuda_test PRIVATE espalier_cuda_headers)
    espalier_test(cuda/decoder_cuda_test.cpp)
    target_link_libraries(decoder_cuda_test PRIVATE espalier_cuda_headers)
    espalier_test(cuda/lost_device_test.cpp)
    target_link_libraries(lost_device_test PRIVATE espalier_cuda_headers)
endif()
# Which device is asked for, in every build.
espalier_test(cuda/device_test.cpp)
