// `espalier convert`: tiny checkpoints in, models out; what it refuses, naming the tensor or the file; and
// the converted BERT against the plain reference, on every instruction set and backend.
#include <doctest/doctest.h>

#include <cmath>

#include "kernels/cpu/isa.h"
#include "kernels/dense/dense.h"
#include "model_format/reader.h"
#include "tests/command/checkpoint.h"
#include "tests/command/process.h"
#include "tests/reference.h"

namespace espalier::test {
namespace {

using Edit = std::function<void(Checkpoint&)>;

// A folder with both checkpoints; the edited one is converted.
struct Conversion {
    TemporaryFolder folder;
    std::string bert = folder.path("bert"), trees = folder.path("trees"), out = folder.path("out.esp");

    Conversion(const Edit& edit_bert = {}, const Edit& edit_trees = {}) {
        Checkpoint dense = bert_checkpoint(), tree = tree_checkpoint();
        if (edit_bert) edit_bert(dense);
        if (edit_trees) edit_trees(tree);
        dense.write(bert);
        tree.write(trees);
    }
    Outcome convert(const std::vector<std::string>& more = {}) const { return run(bert, more); }
    Outcome convert_trees(const std::vector<std::string>& more = {}) const {
        std::vector<std::string> all{"--base", bert};
        all.insert(all.end(), more.begin(), more.end());
        return run(trees, all);
    }
    // Refused with these words, and no output file is left.
    void refuses(const std::vector<std::string>& words, bool tree = false) const {
        check_refused(tree ? convert_trees() : convert(), words);
        CHECK(folder.files() == 2);
    }

   private:
    Outcome run(const std::string& source, const std::vector<std::string>& more) const {
        std::vector<std::string> arguments{"convert", source, "-o", out};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return espalier(arguments);
    }
};

void refuses_bert(const Edit& edit, const std::vector<std::string>& words) {
    Conversion(edit).refuses(words);
}
void refuses_trees(const Edit& edit, const std::vector<std::string>& words) {
    Conversion({}, edit).refuses(words, true);
}

std::vector<double> vector_of(const Outcome& outcome) {
    return Json::parse(check_good(outcome).out).get<std::vector<double>>();
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
    double product = 0, x = 0, y = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        product += a[i] * b[i];
        x += a[i] * a[i];
        y += b[i] * b[i];
    }
    return product / std::sqrt(x * y);
}

}  // namespace

TEST_CASE("four precisions, close to each other") {
    const Conversion c;
    for (const bool tree : {false, true}) {
        std::vector<double> exact;
        for (const char* precision : {"f32", "f16", "bf16", "int8"}) {
            CAPTURE(precision);
            const Outcome outcome = check_good(tree ? c.convert_trees({"--precision", precision})
                                                    : c.convert({"--precision", precision}));
            CHECK(outcome.lines().size() == 1);
            check_good(espalier({"verify", c.out}));
            const auto vector = vector_of(espalier({"embed", c.out, "the tree , a leaf"}));
            if (exact.empty()) exact = vector;
            // Random trees are fickle: a rounded token may take another leaf.
            CHECK(cosine(vector, exact) > (tree ? 0.8 : 0.999));
        }
    }
}

TEST_CASE("8-bit rows are turned where products may be, and turned back for wider arithmetic") {
    const Conversion c;
    check_good(c.convert_trees({"--precision", "int8"}));
    const ModelFile file = ModelFile::open(c.out.c_str());
    size_t turned = 0;
    for (const TensorNeed& need : tensors_of(file.spec())) {
        const TensorView& tensor = file.at(need.name);
        CAPTURE(std::string(need.name.text));
        const bool turns = tensor.type == TensorType::s8 && need.rotation != Rotation::none;
        CHECK((tensor.layout != TensorLayout::row_major) == turns);
        CHECK((tensor.layout == TensorLayout::packed) == (turns && may_be_packed(need)));
        turned += turns ? 1 : 0;
    }
    CHECK(turned >= 8);
    const auto back = vector_of(espalier({"embed", c.out, "a leaf", "--precision", "f32"}));
    check_good(c.convert_trees({"--precision", "f32"}));
    const auto exact = vector_of(espalier({"embed", c.out, "a leaf", "--precision", "f32"}));
    CHECK(cosine(back, exact) > 0.8);
}

TEST_CASE("what a model file says about itself") {
    const Conversion c;
    check_good(c.convert_trees({"--licence", "Apache-2.0", "--origin", "a test", "--name", "pear",
                                "--head-name", "mood", "--max-tokens", "9", "--pooling", "cls"}));
    const ModelFile file = ModelFile::open(c.out.c_str());
    CHECK(file.spec().licence == "Apache-2.0");
    CHECK(file.spec().origin == "a test");
    CHECK(file.spec().name == "pear");
    CHECK(file.spec().heads[0].name == "mood");
    CHECK(file.spec().tokenizer.max_tokens == 9);
    CHECK(file.spec().pooling == Pooling::cls);
    CHECK(file.spec().parts.size() == 3);
    check_good(espalier({"classify", c.out, "--head", "mood", "the tree"}));
    check_refused(c.convert({"--max-tokens", "33"}), {"--max-tokens", "32", "33"});
    check_usage(c.convert({"--max-tokens", "2"}));
}

TEST_CASE("embeddings come from the base, rounded to f16") {
    const Conversion c;
    check_good(c.convert_trees());
    const ModelFile file = ModelFile::open(c.out.c_str());
    const auto values = bert_checkpoint().tensors.at("embeddings.word_embeddings.weight").values;
    const TensorView& table = file.at("embeddings.word");
    REQUIRE(table.elements() == values.size());
    for (size_t i = 0; i < values.size(); ++i)
        REQUIRE(table.as<float>()[i] == float_from_half(half_from_float(values[i])));
    const Outcome alone = espalier({"convert", c.trees, "-o", c.out});
    check_refused(alone, {"embeddings.word_embeddings.weight", "--base"});
    CHECK(std::filesystem::exists(c.out));  // the good file of before
}

TEST_CASE("missing, misshapen and unused tensors are named") {
    for (const char* name :
         {"embeddings.word_embeddings.weight", "embeddings.LayerNorm.bias",
          "encoder.layer.1.attention.self.key.weight", "encoder.layer.0.intermediate.dense.bias",
          "encoder.layer.1.output.LayerNorm.weight"}) {
        refuses_bert([&](Checkpoint& c) { c.tensors.erase(name); }, {name, "missing"});
        refuses_bert([&](Checkpoint& c) { c.add(name, {3, 5}); }, {name, "[3, 5]", "expected shape"});
    }
    for (const char* name :
         {"encoder.layer.0.ffn.1.leaf.down.bias", "encoder.layer.0.ffn.0.up.weight",
          "encoder.layer.1.ffn.0.in.weight", "classifier.out.bias", "encoder.layer.0.ffn.1.node.threshold"}) {
        refuses_trees([&](Checkpoint& c) { c.tensors.erase(name); }, {name, "missing"});
        refuses_trees([&](Checkpoint& c) { c.add(name, {7}); }, {name, "[7]", "expected shape"});
    }
    refuses_bert([](Checkpoint& c) { c.add("encoder.layer.2.output.dense.bias", {16}); },
                 {"encoder.layer.2.output.dense.bias", "uses it"});
    refuses_trees(
        [](Checkpoint& c) {
            c.add("encoder.layer.0.ffn.1.leaf.gate.weight", {8, 3, 16});
        },
        {"leaf.gate.weight", "uses it"});
    refuses_bert([](Checkpoint& c) { c.tensors["embeddings.LayerNorm.bias"].values[3] = std::nanf(""); },
                 {"embeddings.norm.bias", "value 3", "finite"});
}

TEST_CASE("harmless tensors are left out, and printed") {
    const std::vector<std::string> harmless{"embeddings.position_ids", "pooler.dense.weight",
                                            "cls.predictions.bias", "cls.seq_relationship.weight"};
    const Conversion c([&](Checkpoint& bert) {
        for (const std::string& name : harmless)
            bert.add(name, {4});
    });
    const Outcome outcome = check_good(c.convert());
    for (const std::string& name : harmless)
        CHECK(holds(outcome.err, "left out: " + name + "\n"));
}

TEST_CASE("the vocabulary") {
    refuses_bert([](Checkpoint& c) { c.vocabulary.clear(); }, {"vocab.txt", "No such file"});
    refuses_bert([](Checkpoint& c) { c.vocabulary.push_back("more"); }, {"vocab.txt", "24", "25"});
    refuses_bert([](Checkpoint& c) { c.vocabulary[2] = "CLS"; }, {"vocab.txt", "[CLS]", "missing"});
    const Conversion shorter([](Checkpoint& c) { c.vocabulary.pop_back(); });
    CHECK(holds(check_good(shorter.convert()).err, "1 embedding rows have no token"));
}

TEST_CASE("config.json") {
    const auto refuses = [](const char* key, const Json& value, const std::vector<std::string>& words) {
        refuses_bert([&](Checkpoint& c) { c.config[key] = value; }, words);
    };
    refuses("hidden_size", 0, {"config.json", "hidden_size", "found 0"});
    refuses("hidden_size", "16", {"hidden_size", "integer", "16"});
    refuses("hidden_size", 1e300, {"hidden_size", "integer"});
    refuses("hidden_size", 18446744073709551615ull, {"hidden_size", "18446744073709551615"});
    refuses("vocab_size", -24, {"vocab_size", "-24"});
    refuses("num_attention_heads", 3, {"num_attention_heads", "divisor"});
    refuses("hidden_act", "swishy", {"hidden_act", "swishy"});
    refuses("layer_norm_eps", nullptr, {"layer_norm_eps", "nothing"});
    refuses("model_type", "gpt", {"model_type", "gpt"});
    refuses("is_decoder", true, {"is_decoder"});
    refuses("position_embedding_type", "relative_key", {"position_embedding_type", "relative_key"});
    refuses("num_hidden_layers", 3, {"encoder.layer.2", "missing"});
    refuses_trees([](Checkpoint& c) { c.config["ffn"] = 5; }, {"ffn", "array"});
    refuses_trees([](Checkpoint& c) { c.config["ffn"][0][0]["kind"] = "oak"; }, {"ffn[0][0]", "kind", "oak"});
    refuses_trees([](Checkpoint& c) { c.config["ffn"][0][1]["depth"] = 25; }, {"ffn[0][1]", "depth", "25"});
    refuses_trees([](Checkpoint& c) { c.config["ffn"].push_back(Json::array()); }, {"ffn", "2", "3"});
    refuses_trees([](Checkpoint& c) { c.config["head"]["labels"] = {1, 2}; }, {"labels", "strings"});
    refuses_trees([](Checkpoint& c) { c.config["head"] = 1; }, {"head", "kind"});
}

TEST_CASE("files that are not JSON, or missing") {
    const Conversion c;
    const std::string good = read_file(c.bert + "/config.json");
    for (const char* key : {"hidden_size", "ffn", "head", "model_type"}) {
        const std::string entry = "{\"" + std::string(key) + "\": ";
        write_file(c.bert + "/config.json",
                   entry + std::string(300000, '[') + std::string(300000, ']') + "}");
        c.refuses({"config.json", "levels"});
    }
    for (const std::string& text : {std::string(), std::string("{"), std::string("[1]"), std::string("null"),
                                    good + "x", std::string("{\"a\": \xff}")}) {
        write_file(c.bert + "/config.json", text);
        c.refuses({"config.json"});
    }
    write_file(c.bert + "/config.json", good);
    std::filesystem::remove(c.bert + "/model.safetensors");
    c.refuses({"model.safetensors", "No such file"});
    check_refused(espalier({"convert", c.folder.path("nowhere"), "-o", c.out}), {"nowhere", "No such file"});
    CHECK(!std::filesystem::exists(c.out));
}

namespace {

// A header of one tensor with this entry, over eight bytes of data.
std::string one_tensor(const std::string& entry, const std::string& more = "") {
    return safetensors_file("{\"t\": " + entry + more + "}", "12345678");
}

}  // namespace

TEST_CASE("malformed safetensors: each check") {
    const Conversion c;
    const auto refuses = [&](const std::string& bytes, const std::vector<std::string>& words) {
        write_file(c.bert + "/model.safetensors", bytes);
        std::vector<std::string> all{"model.safetensors: "};
        all.insert(all.end(), words.begin(), words.end());
        c.refuses(all);
    };
    const std::string whole = read_file(c.bert + "/model.safetensors");
    refuses("", {"8 bytes", "found 0"});
    refuses("1234567", {"found 7"});
    refuses(whole.substr(0, 100), {"header length"});
    refuses(std::string(8, '\xff') + "{}", {"header length", "18446744073709551615"});
    refuses(whole.substr(0, whole.size() - 1), {"data_offsets"});
    refuses(whole + "x", {"expected data of"});
    refuses(safetensors_file("{", ""), {"JSON"});
    refuses(safetensors_file("", ""), {"JSON"});
    refuses(safetensors_file("[]", ""), {"JSON object", "array"});
    refuses(one_tensor("5"), {"tensor t", "dtype"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [2]})"), {"tensor t", "data_offsets"});
    refuses(one_tensor(R"({"dtype": 1, "shape": [2], "data_offsets": [0, 8]})"), {"tensor t", "dtype"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]})"), {"tensor t", "shape"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]})"), {"tensor t"});
    refuses(one_tensor(R"({"dtype": "F9", "shape": [2], "data_offsets": [0, 8]})"), {"unknown dtype F9"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})"), {"shape", "-2"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]})"), {"shape", "2.0"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [4611686018427387905], "data_offsets": [0, 8]})"),
            {"overflows"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, -8]})"), {"data_offsets"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]})"), {"data_offsets 8 to 0"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]})"), {"0 to 12"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]})"), {"expected 4 bytes"});
    refuses(one_tensor(R"({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})"),
            {"expected its data at 0"});
    const std::string first = R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})";
    refuses(one_tensor(first), {"expected data of 4 bytes, found 8"});
    refuses(one_tensor(first, R"(, "u": )" + first), {"expected its data at 4"});
    refuses(one_tensor(first, R"(, "t": )" + first), {"tensor t", "twice"});
    const std::string deep = std::string(300000, '[') + std::string(300000, ']');
    refuses(one_tensor(R"({"dtype": "F32", "shape": )" + deep + R"(, "data_offsets": [0, 8]})"), {});
    refuses(one_tensor(R"({"dtype": "I64", "shape": [1], "data_offsets": [0, 8]})"),
            {"embeddings.word_embeddings.weight", "missing"});
}

TEST_CASE("an output that cannot be written") {
    const Conversion c;
    check_refused(espalier({"convert", c.bert, "-o", c.folder.path("no/such/out.esp")}), {"no/such/out.esp"});
    check_refused(espalier({"convert", c.bert, "-o", c.trees}), {c.trees});
    CHECK(c.folder.files() == 2);
}

TEST_CASE("the converted BERT against the reference, on every instruction set and backend") {
    const Conversion c;
    check_good(c.convert());
    const Checkpoint checkpoint = bert_checkpoint();
    ReferenceBert reference;
    for (const auto& [name, tensor] : checkpoint.tensors)
        reference.tensors[name] = tensor.values;
    reference.hidden = tiny_bert::hidden;
    reference.heads = tiny_bert::heads;
    reference.layers = tiny_bert::layers;
    // the tree ##s . [SEP] a b and an unknown word: ids of tiny_vocabulary.
    const std::string text = "The trees .\tA b zebra";
    const auto expected = reference.embed({2, 5, 6, 17, 20, 3, 8, 9, 1, 3}, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1});
    for (const Isa isa : available_isas()) {
        for (const std::string backend : {"native", "onednn"}) {
            if (backend == "onednn" && (isa == Isa::scalar || !onednn_compiled_in())) continue;
            CAPTURE(name_of(isa));
            CAPTURE(backend);
            const auto vector =
                vector_of(espalier({"embed", c.out, "--isa", name_of(isa), "--backend", backend, text}));
            REQUIRE(vector.size() == expected.size());
            for (size_t i = 0; i < vector.size(); ++i)
                CHECK(std::abs(vector[i] - expected[i]) < 1e-4);
        }
    }
}

}  // namespace espalier::test
