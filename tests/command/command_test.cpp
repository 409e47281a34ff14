// The contract of the command: exit statuses, one clear line on stderr, results alone on stdout, and what
// each subcommand prints. Models are made here.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "kernels/cpu/isa.h"
#include "tests/command/process.h"
#include "tests/format/patch.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using nlohmann::json;

// The tiny model with two heads, on disc.
struct Files {
    TemporaryFolder folder;
    std::string tiny = folder.path("tiny.esp"), plain = folder.path("plain.esp");
    Files() {
        const ModelSpec spec = tiny_spec();
        write_model(tiny.c_str(), spec, random_tensors(spec, all_types()));
        ModelSpec bare = bare_spec();  // no heads, no trees
        bare.flags |= model_flag::normalise_output;
        add_block(bare, block_flag::attention, {dense_part(6)});
        write_model(plain.c_str(), bare, random_tensors(bare, only(TensorType::f32)));
    }
    std::string write(const std::string& name, std::span<const std::byte> bytes) const {
        write_file(folder.path(name), bytes);
        return folder.path(name);
    }
};

const Files& files() {
    static const Files all;
    return all;
}

// The tiny model's classifier.
Outcome classify(const std::vector<std::string>& more, const std::string& input = "") {
    std::vector<std::string> arguments{"classify", files().tiny, "--head", "sentiment"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return espalier(arguments, input);
}

json parsed(const Outcome& outcome) {
    CAPTURE(outcome.err);
    REQUIRE(outcome.lines().size() == 1);
    return json::parse(outcome.out);
}

}  // namespace

TEST_CASE("help and version are results; wrong usage exits 2") {
    CHECK(holds(check_good(espalier({"--help"})).out, "classify"));
    CHECK(holds(check_good(espalier({"classify", "--help"})).out, "--head"));
    CHECK(check_good(espalier({"--version"})).out.starts_with("espalier "));
    check_usage(espalier({}));
    check_usage(espalier({"frobnicate"}));
    check_usage(espalier({"classify"}));
    check_usage(espalier({"classify", files().tiny, "--no-such-option"}));
    check_usage(espalier({"classify", files().tiny, "--threads", "0", "a"}));
    check_usage(espalier({"classify", files().tiny, "--isa", "nonsense", "a"}));
    check_usage(espalier({"classify", files().tiny, "--backend", "nonsense", "a"}));
    check_usage(espalier({"bench"}));
    check_usage(espalier({"bench", "model"}));
    check_usage(espalier({"glue", files().tiny, "--task", "nonsense", "x.tsv"}));
    check_usage(espalier({"convert", "somewhere"}));
    check_usage(espalier({"convert", "somewhere", "-o", "x.esp", "--precision", "f8"}));
}

TEST_CASE("classify: arguments") {
    const auto lines = check_good(classify({"the tree", "a\tb", ""})).lines();
    REQUIRE(lines.size() == 3);
    const char* texts[] = {"\tthe tree", "\ta\tb", "\t"};
    for (size_t i = 0; i < 3; ++i) {
        CAPTURE(lines[i]);
        CHECK((lines[i].starts_with("negative\t") || lines[i].starts_with("positive\t")));
        CHECK(lines[i].ends_with(texts[i]));
        const double probability = std::stod(lines[i].substr(lines[i].find('\t') + 1));
        CHECK(probability >= 0.5);
        CHECK(probability <= 1);
    }
}

TEST_CASE("classify: JSON, and its softmax") {
    const json j = parsed(check_good(classify({"--json", "the leaf"})));
    CHECK(j.at("text") == "the leaf");
    CHECK(j.at("truncated") == false);
    const auto logits = j.at("logits").get<std::vector<double>>();
    REQUIRE(logits.size() == 2);
    const size_t best = logits[1] > logits[0] ? 1 : 0;
    CHECK(j.at("label") == (best == 1 ? "positive" : "negative"));
    const double probability = 1 / (1 + std::exp(logits[1 - best] - logits[best]));
    CHECK(j.at("probability").get<double>() == doctest::Approx(probability).epsilon(1e-5));
    const json pair = parsed(check_good(classify({"--json", "a\tb"})));
    CHECK(pair.at("text") == "a");
    CHECK(pair.at("pair") == "b");
}

TEST_CASE("classify: stdin gives what arguments give") {
    const std::vector<std::string> texts{"the tree", "", "a\tb", "leaf leaf leaf"};
    std::vector<std::string> arguments{"--json"};
    std::string input, carriage;
    for (const std::string& text : texts) {
        arguments.push_back(text);
        input += text + "\n";
        carriage += text + "\r\n";
    }
    const Outcome by_arguments = check_good(classify(arguments));
    CHECK(by_arguments.lines().size() == 4);
    CHECK(check_good(classify({"--json"}, input)).out == by_arguments.out);
    CHECK(check_good(classify({"--json"}, carriage)).out == by_arguments.out);
    CHECK(check_good(classify({}, "no newline at the end")).lines().size() == 1);
    CHECK(check_good(classify({}, "")).out == "");
}

TEST_CASE("classify: a bad line gets a record in its place, the rest go on") {
    const std::string input = "the tree\na\tb\tc\n\xff\xfe\nleaf\n";
    const Outcome text = classify({}, input);
    CHECK(text.status == 1);
    REQUIRE(text.lines().size() == 4);
    CHECK(text.lines()[1].starts_with("error\t"));
    CHECK(holds(text.lines()[1], "line 2"));
    CHECK(holds(text.lines()[1], "tab"));
    CHECK(holds(text.lines()[2], "line 3"));
    CHECK(holds(text.lines()[2], "UTF-8"));
    CHECK(text.lines()[3].ends_with("\tleaf"));
    CHECK(holds(text.err, "espalier: line 2: "));

    const Outcome records = classify({"--json"}, input);
    CHECK(records.status == 1);
    REQUIRE(records.lines().size() == 4);
    CHECK(json::parse(records.lines()[0]).contains("label"));
    CHECK(json::parse(records.lines()[1]).contains("error"));
    CHECK(json::parse(records.lines()[2]).contains("error"));
    CHECK(json::parse(records.lines()[3]).contains("label"));
    for (const char* command : {"embed", "routes"})
        CHECK(espalier({command, files().tiny, "--json"}, input).status == 1);
}

TEST_CASE("classify: a text far too long is cut and says so") {
    std::string longest;
    while (longest.size() < 100000)
        longest += "tree ";
    for (const std::string& text : {longest, std::string(100000, 'a'), longest + "\tleaf"}) {
        const json j = parsed(check_good(classify({"--json", text})));
        CHECK(j.at("truncated") == (text[1] != 'a'));  // 100,000 letters are one unknown word
    }
}

TEST_CASE("classify: heads by name") {
    const json score =
        parsed(check_good(espalier({"classify", files().tiny, "--json", "--head", "score", "a"})));
    CHECK(score.at("label") == "value");
    CHECK(score.at("logits").size() == 1);
    CHECK(score.at("value") == score.at("logits")[0]);
    check_refused(espalier({"classify", files().tiny, "--head", "nonsense", "a"}),
                  {files().tiny, "--head", "sentiment, score", "nonsense"});
    check_refused(espalier({"classify", files().tiny, "a"}), {files().tiny, "--head", "sentiment, score"});
    check_refused(espalier({"classify", files().plain, "a"}), {files().plain, "no classification head"});
}

TEST_CASE("embed: a JSON array a text, of length 1") {
    const auto lines = check_good(espalier({"embed", files().plain, "the tree", "", "a\tb"})).lines();
    REQUIRE(lines.size() == 3);
    for (const std::string& line : lines) {
        const auto vector = json::parse(line).get<std::vector<double>>();
        CHECK(vector.size() == 8);
        const double squares = std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0);
        CHECK(squares == doctest::Approx(1).epsilon(1e-5));
    }
    CHECK(lines[0] != lines[1]);
    CHECK(check_good(espalier({"embed", files().plain}, "the tree\n\na\tb\n")).lines() == lines);
    CHECK(check_good(espalier({"embed", files().plain, "--no-mmap"}, "the tree\n\na\tb\n")).lines() == lines);
    CHECK(check_good(espalier({"embed", files().plain, "--huge-pages"}, "the tree\n\na\tb\n")).lines() ==
          lines);
}

TEST_CASE("inspect and verify") {
    const json j = parsed(check_good(espalier({"inspect", files().tiny, "--json"})));
    CHECK(j.at("hidden") == 8);
    CHECK(j.at("blocks").size() == 2);
    CHECK(j.at("blocks")[0].at("parts")[1].at("kind") == "leaf_forest");
    CHECK(j.at("stored_neurons") == 5 + 2 * 4 * 3 + 2 * 3);
    CHECK(j.at("active_neurons") == 5 + 2 * 3 + 2 * 2);
    CHECK(j.at("heads")[0].at("labels") == json({"negative", "positive"}));
    CHECK(j.at("tokenizer").at("kind") == "wordpiece");
    CHECK(j.at("kernels").at("isa") == name_of(best_isa()));
    CHECK(holds(check_good(espalier({"inspect", files().tiny})).out, "wordpiece"));
    const json v = parsed(check_good(espalier({"verify", files().tiny, "--json"})));
    CHECK(v.at("ok") == true);
    CHECK(v.at("payload_hash") == j.at("payload_hash"));
    CHECK(holds(check_good(espalier({"verify", files().tiny})).out, "good"));
}

TEST_CASE("files that are no models") {
    const AlignedBytes model = tiny_model();
    Patch future(model.span());
    future.header().version_major = 2;
    Patch flipped(model.span());
    flipped.bytes()[flipped.header().payload_offset + 5] ^= std::byte{1};
    Patch directory(model.span());
    directory.bytes()[300] ^= std::byte{1};
    const auto bad = [](const std::string& name, std::span<const std::byte> bytes) {
        return files().write(name, bytes);
    };
    const std::string text =
        "this is a text, not a model; it is as long as a header needs it to be........."
        "....................................................................";
    const std::vector<std::pair<std::string, std::string>> cases{
        {bad("truncated.esp", model.span().first(model.span().size() - 1000)), "truncated"},
        {bad("directory.esp", directory.bytes()), "hash"},
        {bad("future.esp", future.bytes()), "version 1, found 2"},
        {bad("empty.esp", {}), "found 0"},
        {bad("text.esp", std::as_bytes(std::span(text))), "another kind of file"},
        {files().folder.path("missing.esp"), "No such file"},
        {files().folder.path(""), "regular file"},
    };
    for (const auto& [path, words] : cases) {
        for (const char* command : {"inspect", "verify", "classify", "embed", "routes"}) {
            CAPTURE(command);
            check_refused(espalier({command, path}, "a\n"), {path, words});
        }
        check_refused(espalier({"bench", "model", path, "--json"}), {path, words});
    }
    const std::string payload = bad("flipped.esp", flipped.bytes());
    check_refused(espalier({"verify", payload}), {payload, "payload", "hash"});
    check_refused(espalier({"verify", payload, "--no-mmap"}), {payload, "payload", "hash"});
    CHECK(check_good(espalier({"inspect", payload})).err == "");
}

// Found only when the model is prepared: the message must still say which file.
TEST_CASE("a vocabulary that contradicts itself") {
    Patch patch(tiny_model().span());
    const uint64_t offsets = patch.tensor("tokenizer.offsets").offset;
    patch.bytes()[offsets] = std::byte{9};
    const std::string path = files().write("vocabulary.esp", patch.bytes());
    check_refused(espalier({"inspect", path}), {path, "vocabulary"});
}

TEST_CASE("instruction sets") {
    const Outcome best = check_good(espalier({"embed", files().tiny, "the tree"}));
    for (const Isa isa : available_isas()) {
        const std::string name = name_of(isa);
        const Outcome chosen = check_good(espalier({"inspect", files().tiny, "--json", "--isa", name}));
        CHECK(json::parse(chosen.out).at("kernels").at("isa") == name);
        const Outcome variable =
            check_good(espalier({"inspect", files().tiny, "--json"}, "", {"ESPALIER_ISA=" + name}));
        CHECK(json::parse(variable.out).at("kernels").at("isa") == name);
    }
    for (const Isa isa : {Isa::avx2, Isa::avx512, Isa::neon}) {
        if (isa_available(isa)) continue;
        check_refused(espalier({"embed", files().tiny, "--isa", name_of(isa), "a"}),
                      {name_of(isa), "scalar"});
    }
    check_refused(espalier({"embed", files().tiny, "a"}, "", {"ESPALIER_ISA=nonsense"}),
                  {"ESPALIER_ISA", "scalar", "nonsense"});
    CHECK(check_good(espalier({"embed", files().tiny, "the tree"}, "", {"ESPALIER_ISA="})).out == best.out);
    check_refused(espalier({"embed", files().tiny, "--device", "cuda", "a"}), {"cuda"});
    check_refused(espalier({"inspect", files().tiny, "--device", "cuda:1"}), {"inspect", "cuda:1"});
}

TEST_CASE("routes: every token's leaf, and histograms that add up") {
    const auto lines =
        check_good(espalier({"routes", files().tiny, "--json", "the tree", "a leaf\tb"})).lines();
    REQUIRE(lines.size() == 3);
    size_t tokens = 0;
    for (size_t i = 0; i < 2; ++i) {
        const json j = json::parse(lines[i]);
        const size_t count = j.at("tokens").size();
        tokens += count;
        REQUIRE(j.at("layers").size() == 2);
        for (const json& forest : j.at("layers")) {
            const int leaves = forest.at("block") == 0 ? 4 : 2;
            REQUIRE(forest.at("leaf").size() == count);
            REQUIRE(forest.at("margin").size() == count);
            for (size_t t = 0; t < count; ++t) {
                REQUIRE(forest.at("leaf")[t].size() == 2);
                for (const json& leaf : forest.at("leaf")[t])
                    CHECK((leaf >= 0 && leaf < leaves));
                for (const json& margin : forest.at("margin")[t])
                    CHECK(margin >= 0);
            }
        }
    }
    const json usage = json::parse(lines[2]).at("usage");
    CHECK(usage.size() == 2);
    for (const json& forest : usage) {
        for (const json& tree : forest.at("trees")) {
            const auto histogram = tree.at("histogram").get<std::vector<size_t>>();
            CHECK(std::accumulate(histogram.begin(), histogram.end(), size_t{0}) == tokens);
            CHECK(tree.at("entropy_bits") <= std::log2(histogram.size()) + 1e-9);
        }
    }
    check_refused(espalier({"routes", files().plain, "a"}), {files().plain, "no trees"});
}

TEST_CASE("bench model") {
    const Outcome outcome = check_good(espalier(
        {"bench", "model", files().tiny, "--ids", "8", "--batch", "3", "--seconds", "0.05", "--json"}));
    CHECK(outcome.err == "");
    const json j = parsed(outcome);
    for (const char* field :
         {"median_ms", "p99_ms", "tokens_per_second", "peak_rss_mb", "load_ms", "first_ms"}) {
        CAPTURE(field);
        CHECK(j.at(field).get<double>() > 0);
    }
    CHECK(j.at("isa") == name_of(best_isa()));
    CHECK(j.at("ids") == 8);
    CHECK(j.at("batch") == 3);
    CHECK(j.at("distinct_leaves").size() == 2);
    check_refused(espalier({"bench", "model", files().tiny, "--ids", "17", "--json"}), {"--ids", "16", "17"});
    check_refused(espalier({"bench", "model", files().plain, "--ids", "4", "--against", "oak:3", "--json"}),
                  {"oak"});
}

}  // namespace espalier::test
