// bench layer: every precision and kind of part runs and verifies itself, its JSON has the fields that
// scripts read, and wrong input is refused. No times are asserted, only that there are some.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "kernels/cpu/isa.h"
#include "tests/command/process.h"

namespace espalier::test {
namespace {

using nlohmann::json;

std::vector<std::string> layer(const std::vector<std::string>& more) {
    std::vector<std::string> words{"bench", "layer", "--hidden", "64", "--seconds", "0.02", "--no-cold"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

json result(const std::vector<std::string>& more, const std::vector<std::string>& variables = {}) {
    auto words = layer(more);
    words.emplace_back("--json");
    const Outcome outcome = check_good(espalier(words, "", variables));
    REQUIRE(outcome.lines().size() == 1);
    return json::parse(outcome.out);
}

// What any run says of itself.
void check_heading(const json& j) {
    for (const char* key : {"ffn", "against", "precision", "isa", "routing"})
        CHECK(j.at(key).is_string());
    for (const char* key : {"hidden", "batch", "threads"})
        CHECK(j.at(key).is_number_unsigned());
    CHECK(j.at("supported").is_boolean());
}

// A result of one run, or the reason why this machine has none.
bool check_result(const json& j) {
    json brief = j;
    brief.erase("method");
    CAPTURE(brief.dump());
    check_heading(j);
    if (!j["supported"].get<bool>()) {
        CHECK(holds(j.at("reason"), "not supported here"));
        CHECK(!j.contains("forest_us"));
        return false;
    }
    for (const char* key : {"forest_us", "forest_p99_us", "forest_ns_per_token", "forest_calls", "flop_ratio",
                            "multiply_adds_per_token"})
        CHECK(j.at(key).get<double>() > 0);
    CHECK(j.at("none_us") == 0);
    CHECK(j.at("bound_us").get<double>() >= 0);
    CHECK(j.at("verified").at("max_difference").get<double>() <= j["verified"].at("budget").get<double>());
    CHECK(j["verified"].at("unexplained_leaves") == 0);
    for (const char* key : {"time", "inputs", "weights", "dense", "bound", "verified"})
        CHECK(j.at("method").at(key).is_string());
    if (!j.contains("dense_us")) return true;
    CHECK(j.at("dense_us").get<double>() > 0);
    CHECK(j.at("ratio").get<double>() ==
          doctest::Approx(j["dense_us"].get<double>() / j["forest_us"].get<double>()));
    const json& dense = j.at("dense_verified");
    CHECK(dense.at("cosine").get<double>() >= dense.at("lowest_cosine").get<double>());
    for (const char* key : {"up", "down"})
        CHECK(j.at("dense_kernels").at(key).is_string());
    return true;
}

}  // namespace

TEST_CASE("bench layer: every precision and kind of part") {
    for (const std::string precision : {"f32", "bf16", "int8"}) {
        for (const std::string ffn : {"neuron:1:4", "neuron:3:2", "leaf:1:3:16", "leaf:2:2:0", "dense:24",
                                      "dense:16+leaf:1:2:8", "dense:16+neuron:2:3"}) {
            CAPTURE(precision);
            CAPTURE(ffn);
            const json j =
                result({"--ffn", ffn, "--batch", "8", "--precision", precision, "--against", "dense:48"});
            CHECK(j["ffn"] == ffn);
            CHECK(j["precision"] == precision);
            CHECK(j["against"] == "dense:48");
            const bool supported = check_result(j);
            if (precision == "f32") CHECK(supported);
            if (!supported) continue;
            CHECK(j["dense_us"].get<double>() > 0);
            CHECK(j["equal_flops_us"].get<double>() > 0);
        }
    }
}

TEST_CASE("bench layer: batches, threads and defaults") {
    for (const char* batch : {"1", "7", "300"}) {
        for (const char* threads : {"1", "2"}) {
            CAPTURE(batch);
            CAPTURE(threads);
            const json j = result({"--ffn", "neuron:1:4", "--batch", batch, "--threads", threads});
            check_result(j);
            CHECK(j["against"] == "dense:31");  // the stored neurons
            CHECK(j["stored_neurons"] == 31);
            CHECK(j["active_neurons"] == 5);
            CHECK(j["equal_flops_width"] == 5);
            CHECK(j["batch"].get<int>() == std::stoi(batch));
            CHECK(j["threads"].get<int>() == std::stoi(threads));
            CHECK(j["distinct_leaves"].get<int>() >= 1);
            CHECK(j["distinct_leaves"].get<int>() <= 16);
        }
    }
}

TEST_CASE("bench layer: routing decides how many leaves a call takes") {
    for (const char* ffn : {"neuron:1:4", "leaf:1:4:8"}) {
        CAPTURE(ffn);
        const auto leaves = [&](const char* routing) {
            const json j = result({"--ffn", ffn, "--batch", "64", "--routing", routing});
            check_result(j);
            return j["distinct_leaves"].get<int>();
        };
        CHECK(leaves("same") <= 2);  // one, but for a hairline
        CHECK(leaves("distinct") == 16);
    }
}

TEST_CASE("bench layer: cold calls, the bound instead of the dense layer, small pages") {
    const Outcome outcome =
        check_good(espalier({"bench", "layer", "--hidden", "64", "--seconds", "0.02", "--ffn", "neuron:1:3",
                             "--against", "bound", "--no-huge-pages", "--json"}));
    const json j = json::parse(outcome.out);
    check_result(j);
    CHECK(j.at("forest_cold_us").get<double>() > 0);
    CHECK(j.at("dense_bound_us").get<double>() >= 0);
    CHECK(!j.contains("dense_us"));
    CHECK(j.at("huge_pages") == false);
}

TEST_CASE("bench layer: every instruction set, or a reason") {
    for (const Isa isa : available_isas()) {
        for (const char* precision : {"f32", "bf16", "int8"}) {
            CAPTURE(name_of(isa));
            CAPTURE(precision);
            const json j = result({"--ffn", "neuron:1:3", "--isa", name_of(isa), "--precision", precision});
            CHECK(j["isa"] == name_of(isa));
            const bool supported = check_result(j);
            if (std::string(precision) == "f32") CHECK(supported);
        }
    }
    CHECK(check_result(result({"--ffn", "neuron:1:3", "--backend", "native", "--precision", "bf16"})));
    // The bench's 8-bit dense layer has one scale for all rows, which is oneDNN's alone.
    CHECK(!check_result(result({"--ffn", "neuron:1:3", "--backend", "native", "--precision", "int8"})));
}

TEST_CASE("bench layer: a table for people") {
    const Outcome outcome = check_good(espalier(layer({"--ffn", "dense:8+leaf:1:2:8"})));
    for (const char* word :
         {"dense:8+leaf:1:2:8", "equal FLOPs", "none", "bound of the trees", "distinct leaves"}) {
        CAPTURE(word);
        CHECK(holds(outcome.out, word));
    }
}

TEST_CASE("bench layer: a sweep writes a row for every combination") {
    const TemporaryFolder folder;
    const std::string csv = folder.path("layer.csv");
    for (int repeat = 0; repeat < 2; ++repeat) {  // a second run starts the file anew
        const Outcome outcome =
            check_good(espalier(layer({"--sweep", "--csv", csv, "--ffn", "neuron:1:3,leaf:1:2:8", "--batch",
                                       "1,8", "--precision", "f32,int8"})));
        CHECK(outcome.out == "");
        const auto lines = Outcome{0, read_file(csv), ""}.lines();
        REQUIRE(lines.size() == 1 + 8);
        CHECK(lines[0].starts_with("hidden,ffn,against,batch,precision,threads,"));
        CHECK(lines[1].starts_with("64,neuron:1:3,dense:15,1,f32,1,"));
        CHECK(lines[8].starts_with("64,leaf:1:2:8,dense:32,8,int8,1,"));
    }
}

TEST_CASE("bench layer: what is wrong is said") {
    check_usage(espalier({"bench", "layer"}));
    for (const auto& words : std::vector<std::vector<std::string>>{{"--batch", "0"},
                                                                   {"--batch", "many"},
                                                                   {"--batch", "1,8"},
                                                                   {"--threads", "0"},
                                                                   {"--precision", "f8"},
                                                                   {"--precision", "f16"},
                                                                   {"--hidden", "0"},
                                                                   {"--routing", "nonsense"},
                                                                   {"--isa", "nonsense"},
                                                                   {"--seconds", "-1"},
                                                                   {"--sweep"},
                                                                   {"--csv", "x.csv"}}) {
        CAPTURE(words[0]);
        auto all = layer({"--ffn", "neuron:1:3"});
        all.insert(all.end(), words.begin(), words.end());
        check_usage(espalier(all));
    }
    check_refused(espalier(layer({"--ffn", "none"})), {"none"});
    check_refused(espalier(layer({"--ffn", "bush:3"})), {"bush:3"});
    check_refused(espalier(layer({"--ffn", "leaf:1:3:0"})), {"leaf:1:3:0", "no neurons"});
    check_refused(espalier(layer({"--ffn", "neuron:1:99"})), {"99"});
    check_refused(espalier(layer({"--ffn", "neuron:1:3", "--against", "leaf:1:2:3"})),
                  {"dense:W", "leaf:1:2:3"});
    check_refused(espalier(layer({"--ffn", "neuron:65536:20"})), {"available"});
    check_refused(espalier(layer({"--ffn", "neuron:1:3", "--sweep", "--csv", "/no/such/folder/x.csv"})),
                  {"/no/such/folder/x.csv"});
}

}  // namespace espalier::test
