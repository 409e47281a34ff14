// Any bytes as a tokenizer.model of SentencePiece: refused with an Error, or a model that the reader takes
// back, and whose tokenizer encodes and decodes.
#include "model_format/reader.h"
#include "runtime/model.h"
#include "tests/fuzz/fuzz.h"
#include "tests/imported_tokenizer.h"
#include "tests/temporary_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace espalier;
    static const test::TemporaryFolder folder;
    const std::string path = folder.path("tokenizer.model");
    test::write_file(path, std::string_view(reinterpret_cast<const char*>(data), size));
    fuzz::accepted([&] {
        const AlignedBytes bytes =
            test::model_with_tokenizer(700, [&](Import& import) { import_sentencepiece(import, path); });
        fuzz::require(fuzz::accepted([&] { ModelFile::from_memory(bytes.span()); }));
        ModelOptions options;
        options.backend = "native";
        const auto model = Model::from_memory(bytes.span(), options);
        test::decoded(*model, test::encoded(*model, " a tree, caf\xc3\xa9 12\n</s> \xff"));
    });
    return 0;
}
