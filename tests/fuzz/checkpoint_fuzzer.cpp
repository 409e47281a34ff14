// Any texts as the JSON files, vocabulary and safetensors header of a checkpoint folder: refused with an
// Error, or a model file that the reader takes back. Input: an archive of text files (archive.h); the first
// byte of a file called "precision" chooses how weights are stored.
#include <nlohmann/json.hpp>

#include "apps/importers/import.h"
#include "model_format/reader.h"
#include "tests/fuzz/archive.h"
#include "tests/fuzz/fuzz.h"
#include "tests/temporary_folder.h"

namespace {

using namespace espalier;

constexpr const char* text_files[] = {"config.json",           "vocab.txt",
                                      "tokenizer_config.json", "tokenizer.json",
                                      "1_Pooling/config.json", "sentence_bert_config.json"};
constexpr size_t most_data = 256 * 1024;

// As long as the offsets in the header say, and numbers of an ordinary size.
std::string weights_for(const nlohmann::json& header) {
    uint64_t end = 0;
    if (header.is_object()) {
        for (const auto& entry : header) {
            if (!entry.is_object() || !entry.contains("data_offsets")) continue;
            const auto& offsets = entry["data_offsets"];
            if (offsets.is_array() && offsets.size() == 2 && offsets[1].is_number_unsigned())
                end = std::max(end, offsets[1].get<uint64_t>());
        }
    }
    std::string data(std::min<uint64_t>(end, most_data), '\x3c');  // 0.0115 in float32, 1.06 in f16
    for (size_t i = 0; i < data.size(); i += 4)
        data[i] = static_cast<char>(i);
    return data;
}

std::string safetensors(const std::string& header) {
    const uint64_t length = header.size();
    std::string file(sizeof(length), 0);
    std::memcpy(file.data(), &length, sizeof(length));
    return file + header + weights_for(nlohmann::json::parse(header, nullptr, false));
}

void convert(const std::string& folder, Precision precision) {
    const auto import = import_checkpoint(folder, {});
    import->spec.name = "fuzz";
    const AlignedBytes model = model_to_memory(import->spec, store(*import, precision));
    // What is written, is read: a refusal here is a finding.
    fuzz::require(fuzz::accepted([&] { ModelFile::from_memory(model.span()).verify_payload(); }));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const test::TemporaryFolder folder;
    const fuzz::Archive archive({reinterpret_cast<const char*>(data), size});
    for (const char* name : text_files) {
        if (archive.has(name)) {
            test::write_file(folder.path(name), archive.text(name));
        } else {
            std::filesystem::remove(folder.path(name));
        }
    }
    test::write_file(folder.path("model.safetensors"), safetensors(std::string(archive.text("header.json"))));
    const std::string_view choice = archive.text("precision");
    const auto precision = static_cast<Precision>(choice.empty() ? 0 : choice[0] & 3);
    fuzz::accepted([&] { convert(folder.path(""), precision); });
    return 0;
}
