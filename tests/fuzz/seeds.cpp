// Writes the seed corpora of the fuzz targets: fuzz_seeds FOLDER.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "apps/glue/tasks.h"
#include "model_format/layout.h"
#include "tests/byte_level_model.h"
#include "tests/command/checkpoint.h"
#include "tests/fuzz/seed_decoders.h"
#include "tests/harden/subjects.h"

namespace espalier::test {
namespace {

class Corpus {
   public:
    explicit Corpus(const std::filesystem::path& folder) : folder_(folder) {
        std::filesystem::create_directories(folder);
    }
    void add(const std::string& name, std::string_view bytes) const {
        std::ofstream file(folder_ / name, std::ios::binary);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        if (!file) throw std::runtime_error("cannot write a seed");
    }
    // model_input.h has what the last byte says: nothing changed; and for each instruction set and
    // arithmetic.
    void add_model(const std::string& name, const AlignedBytes& model) const {
        const auto bytes = model.span().first(model.span().size() - layout::end_padding);
        const std::string input(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        for (const int choices : {0, 0x41, 0x15, 0x29, 0x3d, 0x01})
            add(name + "-" + std::to_string(choices), input + static_cast<char>(choices));
    }

   private:
    std::filesystem::path folder_;
};

AlignedBytes converted(const Checkpoint& checkpoint, Precision precision) {
    const TemporaryFolder folder;
    checkpoint.write(folder.path("bert"));
    const auto import = import_checkpoint(folder.path("bert"), {});
    return model_to_memory(import->spec, store(*import, precision));
}

Checkpoint whole_tree_checkpoint() {
    Checkpoint c = tree_checkpoint();
    for (const auto& [name, tensor] : bert_checkpoint().tensors) {
        if (name.starts_with("embeddings.")) c.tensors[name] = tensor;
    }
    c.vocabulary = tiny_vocabulary();
    return c;
}

void add_models(const Corpus& corpus) {
    for (const Subject& subject : subjects())
        corpus.add_model(subject.name, subject.bytes);
    ModelSpec bare = bare_spec();
    bare.tokenizer = {};
    corpus.add_model("bare", model_to_memory(bare, random_tensors(bare, only(TensorType::f32))));
    corpus.add_model("converted", converted(whole_tree_checkpoint(), Precision::int8));
}

void add_safetensors(const Corpus& corpus) {
    corpus.add("empty", safetensors_file("{}", ""));
    corpus.add("two", safetensors_file(R"({"__metadata__": {"format": "pt"},)"
                                       R"("a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},)"
                                       R"("b": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]}})",
                                       "12345678abcd"));
    corpus.add("scalar", safetensors_file(R"({"s": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}})",
                                          "12345678"));
}

// As checkpoint_fuzzer.cpp reads them.
std::string archive(const Checkpoint& c, const std::string& more) {
    const std::string weights = safetensors_file(c.tensors);
    uint64_t length = 0;
    std::memcpy(&length, weights.data(), sizeof(length));
    std::string vocabulary;
    for (const std::string& token : c.vocabulary)
        vocabulary += token + "\n";
    if (!vocabulary.empty()) vocabulary = "-- vocab.txt --\n" + vocabulary;
    return "-- config.json --\n" + c.config.dump() + "\n" + vocabulary + more + "-- header.json --\n" +
           weights.substr(sizeof(length), length) + "\n-- precision --\n";
}

void add_checkpoints(const Corpus& corpus) {
    const std::string pooling = "-- 1_Pooling/config.json --\n{\"pooling_mode_mean_tokens\": true}\n",
                      limit = "-- sentence_bert_config.json --\n{\"max_seq_length\": 8}\n",
                      lower = "-- tokenizer_config.json --\n{\"do_lower_case\": false}\n";
    for (const char precision : {'0', '1', '2', '3'}) {
        const std::string name(1, precision);
        corpus.add("bert" + name, archive(bert_checkpoint(), pooling + limit + lower) + precision);
        corpus.add("trees" + name, archive(whole_tree_checkpoint(), "") + precision);
    }
    const auto tokenizer = [](const std::string& json) { return "-- tokenizer.json --\n" + json + "\n"; };
    corpus.add("llama", archive(llama_checkpoint(8), tokenizer(fallback_tokenizer)));
    for (const char* name : {"gpt2", "llama3", "digits"})
        corpus.add(
            name,
            archive(llama_checkpoint(byte_level_vocabulary),
                    tokenizer(read_file(ESPALIER_TEST_DATA "/byte_level/" + std::string(name) + ".json"))));
}

void add_tables(const Corpus& corpus) {
    for (size_t task = 0; task < tasks().size(); ++task) {
        const std::string name(tasks()[task].name);
        const std::string rows = read_file(ESPALIER_TEST_DATA "/glue/" + name + ".tsv").substr(0, 600);
        corpus.add(name, static_cast<char>(task) + rows.substr(0, rows.rfind('\n') + 1));
    }
}

void add_texts(const Corpus& wordpiece, const Corpus& bpe) {
    const std::string texts[] = {"The trees, and a leaf. [SEP] \tunknown",
                                 "\xc3\xa9t\xc3\xa9 e\xcc\x81\xcc\xa3 \xe4\xb8\xad\xe6\x96\x87 \xef\xbc\x81",
                                 std::string("\xff\xc3\x28\xed\xa0\x80 \xf0\x9f\x8c\xb3", 12),
                                 std::string(300, 'a') + " tree", "ab abc </s> we'll 1234\r\n  <t> x"};
    for (size_t i = 0; i < std::size(texts); ++i) {
        const std::string name = "text" + std::to_string(i);
        wordpiece.add(name, std::string(1, static_cast<char>('1' + i)) + texts[i]);
        for (const char kind : {'\0', '\1'}) {
            for (const char choice : {'\x00', '\x1d', '\x1f', '\x16'})
                bpe.add(name + "-" + std::to_string(kind * 64 + choice),
                        std::string{kind, choice} + texts[i]);
        }
    }
}

// Calls in any order: random bytes.
void add_calls(const Corpus& corpus) {
    std::mt19937 random(11);
    for (int i = 0; i < 20; ++i) {
        std::string calls(400, 0);
        for (char& byte : calls)
            byte = static_cast<char>(random());
        corpus.add("calls" + std::to_string(i), calls);
    }
}

}  // namespace
}  // namespace espalier::test

int main(int argc, char** argv) {
    using namespace espalier::test;
    if (argc != 2) {
        std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    const std::filesystem::path folder = argv[1];
    add_models(Corpus(folder / "reader"));
    add_safetensors(Corpus(folder / "safetensors"));
    add_checkpoints(Corpus(folder / "checkpoint"));
    Corpus(folder / "llama2c").add("model", llama2c_seed());
    add_texts(Corpus(folder / "wordpiece"), Corpus(folder / "bpe"));
    add_tables(Corpus(folder / "tsv"));
    add_calls(Corpus(folder / "capi"));
    return 0;
}
