espalier_test(format/format_test.cpp)
espalier_test(format/writer_test.cpp)
espalier_test(format/checks_test.cpp)
espalier_test(format/corruption_test.cpp)
