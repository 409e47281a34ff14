# An installed Espalier, used by a project of its own; of a cross build under its emulator.
if(ESPALIER_SANITIZE)
    set(consumer_flags -fsanitize=${ESPALIER_SANITIZE})
endif()
set(consumer ${CMAKE_COMMAND} -D SOURCE=${CMAKE_CURRENT_SOURCE_DIR}/consumer -D MODEL=${PROJECT_SOURCE_DIR}/models/minilm-trees.esp
    -D FLAGS=${consumer_flags} -D TOOLCHAIN=${CMAKE_TOOLCHAIN_FILE} -D EMULATOR=${CMAKE_CROSSCOMPILING_EMULATOR}
    -D CC=${CMAKE_C_COMPILER} -D NM=${CMAKE_NM} -D READELF=${CMAKE_READELF})
set(consumer_script -P ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.cmake)
if(ESPALIER_APPS)
    add_test(NAME consumer COMMAND ${consumer} -D BUILD=${PROJECT_BINARY_DIR} -D WORK=${PROJECT_BINARY_DIR}/consumer ${consumer_script})
    set_tests_properties(consumer PROPERTIES TIMEOUT 300)
endif()
# A second build of the library, some minutes on a small machine: not under sanitizers.
if(NOT ESPALIER_SANITIZE)
    add_test(NAME consumer_shared COMMAND ${consumer} -D BUILD=${PROJECT_BINARY_DIR}/consumer_shared/build
        -D WORK=${PROJECT_BINARY_DIR}/consumer_shared -D SHARED=ON -D PACKAGE=ON
        "-DOPTIONS=-DBUILD_SHARED_LIBS=ON;-DESPALIER_ONEDNN=${ESPALIER_ONEDNN};-DESPALIER_THREADS=${ESPALIER_THREADS};-G;${CMAKE_GENERATOR}"
        ${consumer_script})
    set_tests_properties(consumer_shared PROPERTIES TIMEOUT 1200 LABELS slow COST 250)
    if(NOT ESPALIER_THREADS)
        # A model for a build without decoders to refuse.
        add_executable(decoder_file consumer/decoder_file.c)
        target_link_libraries(decoder_file PRIVATE espalier_api_models)
        set_target_properties(decoder_file PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
        set(decoder ${PROJECT_BINARY_DIR}/tests/decoder.esp)
        add_test(NAME decoder_file COMMAND decoder_file ${decoder})
        set_tests_properties(decoder_file PROPERTIES FIXTURES_SETUP decoder_file)
        add_test(NAME consumer_core COMMAND ${consumer} -D BUILD=${PROJECT_BINARY_DIR}/consumer_core/build
            -D WORK=${PROJECT_BINARY_DIR}/consumer_core -D CORE=ON -D DECODER=${decoder}
            "-DOPTIONS=-DESPALIER_TOKENIZERS=OFF;-DESPALIER_DECODERS=OFF;-DESPALIER_ONEDNN=OFF;-DESPALIER_THREADS=OFF;-G;${CMAKE_GENERATOR}"
            ${consumer_script})
        set_tests_properties(consumer_core PROPERTIES TIMEOUT 1200 LABELS slow FIXTURES_REQUIRED decoder_file)
    endif()
endif()
