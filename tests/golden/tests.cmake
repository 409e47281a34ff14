# Tests against answers that others computed. The *_shared tests need ../shared (data that may not be copied
# here) and are skipped, and say so, where it is absent.
espalier_test(golden/shipped_test.cpp LABELS golden)
target_link_libraries(shipped_test PRIVATE nlohmann_json::nlohmann_json)
if(ESPALIER_APPS)
    espalier_test(golden/golden_shared_test.cpp LABELS golden TIMEOUT 1800)
    espalier_test(golden/decoder_shared_test.cpp LABELS golden TIMEOUT 900)
    espalier_test(golden/dependency_shared_test.cpp LABELS golden)
endif()
espalier_test(golden/wordpiece_shared_test.cpp LABELS golden TIMEOUT 900)
target_link_libraries(wordpiece_shared_test PRIVATE nlohmann_json::nlohmann_json)

# The long ones first: two at a time, a stage ends with the short ones.
set_tests_properties(shipped_test PROPERTIES COST 200)
if(ESPALIER_APPS)
    set_tests_properties(golden_shared_test PROPERTIES COST 300)
    set_tests_properties(decoder_shared_test PROPERTIES COST 100)
endif()

# A cross build's answers against those of a build for this machine.
set(ESPALIER_HOST_COMMAND "" CACHE FILEPATH "An espalier command of this machine: a cross build's answers are compared with its")
if(ESPALIER_HOST_COMMAND AND ESPALIER_APPS)
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    add_test(NAME same_answers COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/scripts/same_answers.py
        --first ${ESPALIER_HOST_COMMAND} --second "${CMAKE_CROSSCOMPILING_EMULATOR} $<TARGET_FILE:espalier_command>"
        --model ${PROJECT_SOURCE_DIR}/models/minilm-trees.esp --sentences ${CMAKE_CURRENT_SOURCE_DIR}/data/golden/sentences.txt
        --tsv ${PROJECT_SOURCE_DIR}/../shared/data/glue/SST-2/dev.tsv --rows 20)
    set_tests_properties(same_answers PROPERTIES TIMEOUT 600 LABELS golden PROCESSORS 2)
endif()
