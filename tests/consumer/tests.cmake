# An installed Espalier, used by a project of its own.
if(ESPALIER_SANITIZE)
    set(consumer_flags -fsanitize=${ESPALIER_SANITIZE})
endif()
set(consumer_model ${PROJECT_SOURCE_DIR}/models/sst2-trees.esp)
if(ESPALIER_APPS)
    add_test(NAME consumer COMMAND ${CMAKE_COMMAND} -D BUILD=${PROJECT_BINARY_DIR} -D WORK=${PROJECT_BINARY_DIR}/consumer
        -D SOURCE=${CMAKE_CURRENT_SOURCE_DIR}/consumer -D MODEL=${consumer_model} -D FLAGS=${consumer_flags}
        -P ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.cmake)
    set_tests_properties(consumer PROPERTIES TIMEOUT 300)
endif()
# A second build of the library, some minutes on a small machine: not under sanitizers.
if(NOT ESPALIER_SANITIZE)
    add_test(NAME consumer_shared COMMAND ${CMAKE_COMMAND} -D BUILD=${PROJECT_BINARY_DIR}/consumer_shared/build
        -D WORK=${PROJECT_BINARY_DIR}/consumer_shared -D SOURCE=${CMAKE_CURRENT_SOURCE_DIR}/consumer -D MODEL=${consumer_model}
        -D SHARED_OF=${PROJECT_SOURCE_DIR}
        "-DOPTIONS=-DESPALIER_ONEDNN=${ESPALIER_ONEDNN};-DESPALIER_THREADS=${ESPALIER_THREADS};-G;${CMAKE_GENERATOR}"
        -P ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.cmake)
    set_tests_properties(consumer_shared PROPERTIES TIMEOUT 1200 LABELS slow)
endif()
