# Tests against answers that others computed. The *_shared tests need ../shared (data that may not be copied
# here) and are skipped, and say so, where it is absent.
espalier_test(golden/shipped_test.cpp LABELS golden)
target_link_libraries(shipped_test PRIVATE nlohmann_json::nlohmann_json)
if(ESPALIER_APPS)
    espalier_test(golden/golden_shared_test.cpp LABELS golden TIMEOUT 1800)
    espalier_test(golden/decoder_shared_test.cpp LABELS golden TIMEOUT 900)
endif()
espalier_test(golden/wordpiece_shared_test.cpp LABELS golden TIMEOUT 900)
target_link_libraries(wordpiece_shared_test PRIVATE nlohmann_json::nlohmann_json)
