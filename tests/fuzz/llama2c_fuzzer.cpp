// Any bytes as a llama2.c checkpoint and its tokenizer.bin: refused with an Error, or a model file that the
// reader takes back. Input: 32 bits, the checkpoint's length; the checkpoint; the tokenizer.
#include "apps/importers/import.h"
#include "model_format/reader.h"
#include "tests/fuzz/fuzz.h"
#include "tests/temporary_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace espalier;
    static const test::TemporaryFolder folder;
    uint32_t length = 0;
    if (size < sizeof(length)) return 0;
    std::memcpy(&length, data, sizeof(length));
    const std::string_view rest(reinterpret_cast<const char*>(data) + sizeof(length), size - sizeof(length));
    const size_t cut = std::min<size_t>(length, rest.size());
    test::write_file(folder.path("model.bin"), rest.substr(0, cut));
    test::write_file(folder.path("tokenizer.bin"), rest.substr(cut));
    fuzz::accepted([&] {
        ConvertOptions options;
        options.tokenizer = folder.path("tokenizer.bin");
        const auto import = import_checkpoint(folder.path("model.bin"), options);
        import->spec.name = "fuzz";
        const AlignedBytes model = model_to_memory(import->spec, store(*import, Precision::f32));
        fuzz::require(fuzz::accepted([&] { ModelFile::from_memory(model.span()).verify_payload(); }));
    });
    return 0;
}
