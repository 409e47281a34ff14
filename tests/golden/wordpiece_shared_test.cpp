// The tokenizer against the Hugging Face package on texts that do not stand in the repository:
//
//     tests/scripts/wordpiece_expectations.py --vocab tests/data/wordpiece/vocab.txt --shared DIR --output
//     FILE ESPALIER_WORDPIECE_EXPECTATIONS=FILE …
#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/skip.h"
#include "tests/wordpiece_fixture.h"

TEST_CASE("every text of the expectation file agrees with the package") {
    using namespace espalier::test;
    const char* path = std::getenv("ESPALIER_WORDPIECE_EXPECTATIONS");
    if (path == nullptr) return skip("ESPALIER_WORDPIECE_EXPECTATIONS names no file");
    std::ifstream file(path);
    REQUIRE_MESSAGE(file.good(), "cannot open ", path);
    espalier::TokenizerScratch scratch(std::pmr::get_default_resource());
    size_t lines = 0, ids = 0, cut = 0, different = 0;
    for (std::string line; std::getline(file, line); ++lines) {
        const Expectation expectation = read_expectation(line);
        ids += expectation.whole.ids.size();
        cut += expectation.cut.has_value();
        if (agrees(expectation, scratch)) continue;
        if (++different <= 10) FAIL_CHECK(line.substr(0, 500));
    }
    CHECK(different == 0);
    CHECK(lines > 0);
    MESSAGE(lines, " texts and pairs (", cut, " of them truncated too), ", ids, " ids, ", different,
            " texts differ");
}
