// `fuse --analyse` against the same figures computed from the paper's definitions by others
// (tests/scripts/dependency_expectations.py), on an encoder with trees and on a decoder.
//
// Needs ../shared, and for the encoder ESPALIER_BASE_MODEL (./check provides it).
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/fuse/analysis.h"
#include "apps/importers/import.h"
#include "tests/skip.h"
#include "tests/temporary_folder.h"

namespace espalier::test {
namespace {

const std::string shared = std::string(ESPALIER_SOURCE_DIR) + "/../shared/";

void check_model(const std::string& name, const std::string& path, const ConvertOptions& options) {
    const auto all = nlohmann::json::parse(read_file(ESPALIER_TEST_DATA "/fuse/dependency.json"));
    const auto& expected = all[name];
    auto import = import_checkpoint(path, options);
    const AlignedBytes bytes = model_to_memory(import->spec, store(*import, Precision::f32));
    const auto model = Model::from_memory(bytes.span(), {});
    Context context(*model, {});
    TokenizedTexts sample;
    for (const auto& sequence : expected["ids"]) {
        const auto ids = sequence.get<std::vector<int32_t>>();
        const std::vector<uint8_t> types(ids.size(), 0);
        sample.add({ids, types, false, {}});
    }
    const Analysis found = analyse(context, sample, [](uint64_t, uint64_t) {});
    REQUIRE(found.blocks == expected["cosine"].size());
    double worst = 0;
    const auto compare = [&](double value, const nlohmann::json& wanted, double size) {
        worst = std::max(worst, std::fabs(value - wanted.get<double>()) / size);
    };
    for (size_t i = 0; i < found.blocks; ++i) {
        compare(found.cosine[i], expected["cosine"][i], 1);
        for (size_t j = 0; j < found.blocks; ++j)
            compare(found.at(i, j), expected["dependency"][i][j], 1);
    }
    REQUIRE(found.removals.size() == expected["without_attention"].size());
    for (size_t r = 0; r < found.removals.size(); ++r) {
        const auto& wanted = expected["without_attention"][r];
        compare(found.removals[r].cost, wanted,
                model->spec().family == Family::decoder ? wanted.get<double>() : 1);
    }
    if (model->spec().family == Family::decoder)
        compare(found.perplexity, expected["perplexity"], found.perplexity);
    MESSAGE(name, ": ", found.tokens, " tokens; the largest difference of any figure is ", worst);
    CHECK(worst < 1e-4);
}

}  // namespace

TEST_CASE("the dependency matrix of a decoder is that of its definition") {
    if (!std::filesystem::exists(shared + "data/llama")) return skip("../shared/data/llama is absent");
    ConvertOptions options;
    options.tokenizer = shared + "data/llama/stories260K/tok512.bin";
    check_model("stories260K", shared + "data/llama/stories260K/stories260K.bin", options);
}

TEST_CASE("the dependency matrix of an encoder is that of its definition") {
    const char* base = std::getenv("ESPALIER_BASE_MODEL");
    if (!std::filesystem::exists(shared + "models/embed")) return skip("../shared/models is absent");
    if (base == nullptr || !std::filesystem::exists(std::string(base) + "/model.safetensors"))
        return skip("ESPALIER_BASE_MODEL names no folder with model.safetensors");
    ConvertOptions options;
    options.base = base;
    check_model("embed", shared + "models/embed", options);
}

}  // namespace espalier::test
