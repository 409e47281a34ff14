// Two decoders of other makers against what others computed of them (tests/data/decoder/expectations.json, by
// tests/scripts/decoder_expectations.py): tokens, logits, 20 greedy continuations of 200 tokens, perplexity.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/importers/import.h"
#include "runtime/generate.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"

namespace espalier::test {
namespace {

const std::string shared = std::string(ESPALIER_SOURCE_DIR) + "/../shared/data/llama/";

// Converted as the command does.
std::unique_ptr<Model> converted(const std::string& name, const TemporaryFolder& folder,
                                 const std::string& backend) {
    ConvertOptions options;
    const bool llama2c = name == "stories260K";
    if (llama2c) options.tokenizer = shared + "stories260K/tok512.bin";
    const auto import = import_checkpoint(
        llama2c ? shared + "stories260K/stories260K.bin" : shared + name + "-fp32", options);
    const std::string path = folder.path(name + ".esp");
    write_model(path.c_str(), import->spec, store(*import, Precision::f32), {});
    ModelOptions open;
    open.backend = backend;
    return Model::open(path.c_str(), open);
}

void check_prompt(Context& context, const nlohmann::json& prompt) {
    const auto text = prompt["text"].get<std::string>();
    CAPTURE(text);
    std::vector<int32_t> ids(512);
    Decoder& decoder = context.decoder();
    ids.resize(context.model().pieces().encode(text, false, ids, decoder.tokenizer_scratch()));
    CHECK(ids == prompt["ids"].get<std::vector<int32_t>>());
    decoder.clear();
    const auto logits = decoder.append(ids);
    for (size_t i = 0; i < prompt["logits"].size(); ++i)
        CHECK(std::fabs(logits[i] - prompt["logits"][i].get<double>()) < 1e-4);
    std::vector<int32_t> written;
    const auto keep = [](void* user, int32_t id, std::string_view) {
        static_cast<std::vector<int32_t>*>(user)->push_back(id);
        return true;
    };
    generate(context, text, {.max_tokens = 200, .sampler = {}}, {keep, &written});
    CHECK(written == prompt["continuation"].get<std::vector<int32_t>>());
}

void check_tokens(Context& context, const nlohmann::json& texts) {
    for (const auto& each : texts) {
        const auto text = each["text"].get<std::string>();
        CAPTURE(text);
        std::vector<int32_t> ids(512);
        ids.resize(context.model().pieces().encode(text, false, ids, context.decoder().tokenizer_scratch()));
        CHECK(ids == each["ids"].get<std::vector<int32_t>>());
    }
}

}  // namespace

TEST_CASE("decoders answer as their makers' code does") {
    if (!std::filesystem::exists(shared)) return skip("../shared/data/llama is absent");
    const TemporaryFolder folder;
    const std::string text_path = folder.path("text"),
                      unpack = "xz -dc '" + shared + "tinystories_train_2MB.txt.xz' > '" + text_path + "'";
    if (std::system(unpack.c_str()) != 0) return skip("xz cannot unpack the text");
    const std::string text = read_file(text_path);
    const auto all = nlohmann::json::parse(read_file(ESPALIER_TEST_DATA "/decoder/expectations.json"));
    const auto texts = nlohmann::json::parse(read_file(ESPALIER_TEST_DATA "/decoder/tokens.json"));
    for (const auto& [name, expected] : all.items()) {
        CAPTURE(name);
        for (const std::string backend : {"native", ""}) {
            CAPTURE(backend);
            const auto model = converted(name, folder, backend);
            Context context(*model, {});
            check_tokens(context, texts[name]);
            size_t tokens = 0;
            for (const auto& prompt : expected["prompts"]) {
                check_prompt(context, prompt);
                tokens += prompt["continuation"].size();
            }
            const auto& wanted = expected["perplexity"];
            const Perplexity found = perplexity(context, text.substr(0, wanted["bytes"].get<size_t>()));
            CHECK(found.tokens == wanted["tokens"].get<uint64_t>());
            CHECK(found.perplexity == doctest::Approx(wanted["perplexity"].get<double>()).epsilon(1e-3));
            MESSAGE(name, ", ", model->backend().name(), ": ", expected["prompts"].size(), " prompts, ",
                    tokens, " greedy tokens; perplexity ", found.perplexity, " over ", found.tokens,
                    " tokens, expected ", wanted["perplexity"].get<double>());
        }
    }
}

}  // namespace espalier::test
