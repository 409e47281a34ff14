// The writer refuses what is not exactly the architecture's tensors, names what is wrong, and leaves what
// was there before.
#include <doctest/doctest.h>

#include "base/error.h"
#include "model_format/reader.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using Tensors = std::vector<TensorSource>;

TensorSource& named(Tensors& tensors, std::string_view name) {
    for (TensorSource& tensor : tensors) {
        if (tensor.name == name) return tensor;
    }
    throw std::runtime_error("no tensor of that name");
}

// Changes the tiny model's tensors, writes over an existing file, and returns the message. The file must
// stay as it was, and nothing may stand beside it.
std::string refusal(const std::function<void(Tensors&, ModelSpec&)>& change) {
    const TemporaryFolder folder;
    const std::string path = folder.path("model.esp");
    write_file(path, std::string("what was there before"));
    ModelSpec spec = tiny_spec();
    Tensors tensors = random_tensors(spec, all_types());
    change(tensors, spec);
    std::string message;
    try {
        write_model(path.c_str(), spec, tensors);
    } catch (const Error& error) {
        message = error.what();
    }
    CHECK(read_file(path) == "what was there before");
    CHECK(folder.files() == 1);
    CHECK(message.find('\n') == std::string::npos);
    return message;
}

#define CHECK_NAMES(message, ...)                        \
    do {                                                 \
        const std::string text = (message);              \
        CAPTURE(text);                                   \
        for (const std::string word : {__VA_ARGS__}) {   \
            CAPTURE(word);                               \
            CHECK(text.find(word) != std::string::npos); \
        }                                                \
    } while (false)

}  // namespace

TEST_CASE("missing, repeated and unknown tensors are named") {
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.word").name = "other"; }),
                "embeddings.word", "missing");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.word.scale").name = "other"; }),
                "embeddings.word.scale", "missing");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { t.push_back(t[0]); }), "embeddings.word", "twice");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { t.push_back(t[0]), t.back().name = "stray"; }), "stray",
                "not part");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { t.clear(); }), "embeddings.word", "missing");
}

TEST_CASE("misshapen tensors are named") {
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "embeddings.type").dimensions = {8, 2};
                }),
                "embeddings.type", "shape");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.type").dimensions = {16}; }),
                "embeddings.type", "shape");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.type").dimensions = {}; }),
                "embeddings.type", "shape");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "embeddings.type").dimensions = {1, 1, 1, 2, 8};
                }),
                "embeddings.type", "shape");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "embeddings.word.scale") =
                        tensor_of("embeddings.word.scale", TensorType::f32, {8}, std::vector<float>(8, 1.0F));
                }),
                "embeddings.word.scale");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "tokenizer.bytes") =
                        tensor_of("tokenizer.bytes", TensorType::u8, {0}, std::vector<char>());
                }),
                "tokenizer.bytes");
}

TEST_CASE("types that do not fit are named") {
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.type").type = TensorType::u8; }),
                "embeddings.type", "type");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "embeddings.type").type = TensorType::s8; }),
                "embeddings.type", "scales");
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) { named(t, "tokenizer.bytes").type = TensorType::s8; }),
                "tokenizer.bytes", "type");
}

TEST_CASE("data of the wrong size is named") {
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "tokenizer.offsets").data = [] { return std::vector<std::byte>(99); };
                }),
                "tokenizer.offsets", "expected 100 bytes", "99");
}

TEST_CASE("a spec that contradicts itself is refused before anything is written") {
    CHECK_NAMES(refusal([](Tensors&, ModelSpec& s) { s.hidden = 0; }), "hidden");
    CHECK_NAMES(refusal([](Tensors&, ModelSpec& s) { s.blocks[1].first_part = 0; }), "first_part");
    CHECK_NAMES(refusal([](Tensors&, ModelSpec& s) { s.labels.pop_back(); }), "labels");
    CHECK_NAMES(refusal([](Tensors&, ModelSpec& s) { s.heads[1].name = "sentiment"; }), "exists");
}

TEST_CASE("a tensor whose data throws leaves nothing behind") {
    CHECK_NAMES(refusal([](Tensors& t, ModelSpec&) {
                    named(t, "heads.1.out.weight").data = []() -> std::vector<std::byte> {
                        throw Error(Status::io, "the source went away");
                    };
                }),
                "went away");
}

TEST_CASE("places that cannot be written to") {
    const TemporaryFolder folder;
    const ModelSpec spec = tiny_spec();
    const auto write = [&](const std::string& path) -> std::string {
        try {
            write_model(path.c_str(), spec, random_tensors(spec, all_types()));
        } catch (const Error& error) {
            CHECK(error.status() == Status::io);
            return error.what();
        }
        return "";
    };
    CHECK_NAMES(write(folder.path("no/such/folder.esp")), "folder.esp", "No such file");
    std::filesystem::create_directories(folder.path("folder/with/files"));
    CHECK_NAMES(write(folder.path("folder")), "folder", "cannot");
    CHECK(folder.files() == 1);
}

TEST_CASE("an existing file is replaced when writing succeeds") {
    const TemporaryFolder folder;
    const std::string path = folder.path("model.esp");
    write_file(path, std::string("old"));
    const ModelSpec spec = tiny_spec();
    write_model(path.c_str(), spec, random_tensors(spec, all_types()));
    ModelFile::open(path.c_str()).verify_payload();
    CHECK(folder.files() == 1);
}

}  // namespace espalier::test
