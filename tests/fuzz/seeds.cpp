// Writes the seed corpora of the fuzz targets: fuzz_seeds FOLDER.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

class Corpus {
   public:
    explicit Corpus(const std::filesystem::path& folder) : folder_(folder) {
        std::filesystem::create_directories(folder);
    }
    void add(const char* name, std::string_view bytes) const {
        std::ofstream file(folder_ / name, std::ios::binary);
        file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        if (!file) throw std::runtime_error("cannot write a seed");
    }
    // The last byte says how the reader's fuzzer treats the model in front of it.
    void add_model(const char* name, const ModelSpec& spec, const TypeChoice& types) const {
        const AlignedBytes model = model_to_memory(spec, random_tensors(spec, types));
        const auto bytes = model.span();
        std::string input(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        add(name, input + '\0');
        add((std::string(name) + "-rehashed").c_str(), input + '\1');
    }

   private:
    std::filesystem::path folder_;
};

void add_models(const Corpus& corpus) {
    corpus.add_model("tiny", tiny_spec(), all_types());
    ModelSpec pre = bare_spec();
    pre.norm = Norm::rms_norm;
    pre.norm_placement = NormPlacement::pre;
    pre.flags = model_flag::final_norm | model_flag::normalise_output;
    pre.positions = Positions::none;
    pre.pooling = Pooling::last;
    add_block(pre, block_flag::attention, {dense_part(3), dense_part(4)});
    add_block(pre, 0, {forest_part(PartKind::leaf_forest, 1, 0, 0)});
    corpus.add_model("pre", pre, only(TensorType::f16));
    ModelSpec bare = bare_spec();
    bare.tokenizer = {};
    corpus.add_model("bare", bare, only(TensorType::f32));
}

std::string safetensors(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string file(sizeof(length), 0);
    std::memcpy(file.data(), &length, sizeof(length));
    return file + header + data;
}

void add_safetensors(const Corpus& corpus) {
    corpus.add("empty", safetensors("{}", ""));
    corpus.add("two", safetensors(R"({"__metadata__": {"format": "pt"},)"
                                  R"("a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},)"
                                  R"("b": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]}})",
                                  "12345678abcd"));
    corpus.add("scalar",
               safetensors(R"({"s": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}})", "12345678"));
}

void add_texts(const Corpus& corpus) {
    corpus.add("words", "1The trees, and a leaf. [SEP] \tunknown");
    corpus.add("accents", "2\xc3\xa9t\xc3\xa9 e\xcc\x81\xcc\xa3 \xe4\xb8\xad\xe6\x96\x87 \xef\xbc\x81");
    corpus.add("ill-formed", std::string("\x03\xff\xc3\x28\xed\xa0\x80 \xf0\x9f\x8c\xb3", 13));
    corpus.add("long", "4" + std::string(300, 'a') + " tree");
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
    add_texts(Corpus(folder / "wordpiece"));
    return 0;
}
