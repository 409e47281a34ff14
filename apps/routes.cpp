// espalier routes: which leaf every token took, how narrowly, and how evenly leaves are used.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/command.h"
#include "apps/lines.h"
#include "apps/routes_page.h"
#include "base/error.h"

namespace espalier {
namespace {

struct Options {
    std::string file, html;
    std::vector<std::string> texts;
    CommonOptions common;
};

struct Forest {
    size_t block, part, number;
    const PartSpec* spec;
    std::vector<std::vector<uint64_t>> counts;  // [trees][leaves]
};

std::vector<Forest> forests_of(const Model& model) {
    std::vector<Forest> forests;
    const auto& blocks = model.prepared().blocks;
    for (size_t b = 0; b < blocks.size(); ++b) {
        for (size_t p = 0; p < blocks[b].parts.size(); ++p) {
            const PreparedPart& part = blocks[b].parts[p];
            if (!part.spec->is_forest()) continue;
            forests.push_back({b, p, part.forest, part.spec, {}});
            forests.back().counts.assign(part.spec->trees,
                                         std::vector<uint64_t>(part.spec->leaves_per_tree(), 0));
        }
    }
    return forests;
}

// In bits; the most is the tree's depth.
double entropy(const std::vector<uint64_t>& counts) {
    double total = 0, sum = 0;
    for (const uint64_t count : counts)
        total += static_cast<double>(count);
    for (const uint64_t count : counts) {
        if (count > 0)
            sum -= static_cast<double>(count) / total * std::log2(static_cast<double>(count) / total);
    }
    return sum;
}

// A text's routes: for each forest, leaf and margin as [token][tree].
Json routes_of(const Context& context, const Model& model, const Context::Tokens& tokens,
               const TextInput& input, std::vector<Forest>& forests) {
    Json words = Json::array();
    const TensorView& offsets = model.file().at("tokenizer.offsets");
    const TensorView& bytes = model.file().at("tokenizer.bytes");
    for (const int32_t id : tokens.ids) {
        const uint32_t begin = offsets.as<uint32_t>()[id], end = offsets.as<uint32_t>()[id + 1];
        words.push_back(std::string(bytes.as<char>() + begin, end - begin));
    }
    Json j{{"text", std::string(input.text)}};
    if (input.pair) j["pair"] = std::string(*input.pair);
    j["truncated"] = tokens.truncated;
    j["tokens"] = std::move(words);
    j["layers"] = Json::array();
    for (Forest& forest : forests) {
        const ForestRoutes routes = context.routes(forest.number);
        Json leaves = Json::array(), margins = Json::array();
        for (size_t t = 0; t < context.tokens(); ++t) {
            Json leaf_row = Json::array(), margin_row = Json::array();
            for (size_t k = 0; k < forest.spec->trees; ++k) {
                const uint32_t leaf = routes.leaf[t * forest.spec->trees + k];
                const float margin = routes.margin[t * forest.spec->trees + k];
                ++forest.counts[k][leaf];
                leaf_row.push_back(leaf);
                // A tree without nodes has no margin.
                margin_row.push_back(std::isfinite(margin) ? Json(margin) : Json(nullptr));
            }
            leaves.push_back(std::move(leaf_row));
            margins.push_back(std::move(margin_row));
        }
        j["layers"].push_back({{"block", forest.block},
                               {"part", forest.part},
                               {"leaf", std::move(leaves)},
                               {"margin", std::move(margins)}});
    }
    return j;
}

Json usage_of(const Forest& forest) {
    Json trees = Json::array();
    for (const auto& counts : forest.counts) {
        size_t used = 0;
        for (const uint64_t count : counts)
            used += count > 0 ? 1 : 0;
        trees.push_back(
            {{"histogram", counts}, {"entropy_bits", entropy(counts)}, {"distinct_leaves", used}});
    }
    return {{"block", forest.block},
            {"part", forest.part},
            {"leaves", forest.spec->leaves_per_tree()},
            {"trees", std::move(trees)}};
}

// A row a token: the leaf of every forest (of its first trees, where there are many), the narrowest margin.
void print_walks(const Json& j) {
    constexpr size_t trees_shown = 4;
    std::printf("%s\n  %-16s", j["text"].get<std::string>().c_str(), "token");
    for (const auto& layer : j["layers"])
        std::printf(" block %-2zu", layer["block"].get<size_t>());
    std::printf("  least margin\n");
    for (size_t t = 0; t < j["tokens"].size(); ++t) {
        std::printf("  %-16s", j["tokens"][t].get<std::string>().c_str());
        double least = INFINITY;
        for (const auto& layer : j["layers"]) {
            std::string leaves;
            for (size_t k = 0; k < layer["leaf"][t].size(); ++k) {
                if (k < trees_shown)
                    leaves += (k > 0 ? "," : "") + std::to_string(layer["leaf"][t][k].get<uint32_t>());
                if (!layer["margin"][t][k].is_null())
                    least = std::min(least, layer["margin"][t][k].get<double>());
            }
            std::printf(" %-8s", leaves.c_str());
        }
        std::printf("  %.4f\n", least);
    }
}

void print_usage(const std::vector<Forest>& forests) {
    std::printf("block  part  trees  leaves  used  entropy (bits, of at most)\n");
    for (const Forest& forest : forests) {
        double mean = 0;
        size_t used = 0;
        for (const auto& counts : forest.counts) {
            mean += entropy(counts) / static_cast<double>(forest.counts.size());
            for (const uint64_t count : counts)
                used += count > 0 ? 1 : 0;
        }
        std::printf("%5zu %5zu %6u %7llu %5zu  %.2f of %u\n", forest.block, forest.part, forest.spec->trees,
                    static_cast<unsigned long long>(forest.spec->leaves_per_tree()), used, mean,
                    forest.spec->depth);
    }
}

int routes(const Options& options) {
    const auto model = open_model(options.file, options.common);
    auto forests = forests_of(*model);
    if (forests.empty())
        throw Error(Status::invalid_argument, "%s: the model has no trees: nothing is routed",
                    options.file.c_str());
    Context context(*model, context_options(options.common));
    Json texts = Json::array();  // of the page
    const auto use = [&](const TextInput& input) {
        const auto tokens = context.tokenize(input.text, input.pair);
        context.encode(tokens.batch());
        const Json j = routes_of(context, *model, tokens, input, forests);
        if (!options.html.empty()) texts.push_back(j);
        if (options.common.json) {
            print_json(j);
        } else {
            print_walks(j);
        }
    };
    const auto bad = [&](const std::string& message) {
        std::fprintf(stderr, "espalier: %s\n", message.c_str());
        if (options.common.json) print_json({{"error", message}});
    };
    const bool good = for_each_text(options.texts, use, bad);
    Json usage = Json::array();
    for (const Forest& forest : forests)
        usage.push_back(usage_of(forest));
    if (!options.html.empty())
        write_text(options.html, routes_page(texts, usage, "Routes of " + std::string(model->spec().name)));
    if (options.common.json) {
        print_json({{"usage", std::move(usage)}});
    } else {
        print_usage(forests);
    }
    return good ? 0 : 1;
}

}  // namespace

void add_routes(CLI::App& app, Runner& run) {
    auto* command = app.add_subcommand(
        "routes",
        "Which leaf every token took; with --json a line a text, then a line with the usage of leaves");
    auto options = std::make_shared<Options>();
    command->add_option("FILE", options->file, "A model file with trees")->required();
    command->add_option("TEXT", options->texts, "Texts (default: lines of stdin)");
    command->add_option("--html", options->html,
                        "A page to write: every token's leaf and margin, usage, and who shares a leaf");
    add_common(*command, options->common, true);
    command->callback([options, &run] { run = [options] { return routes(*options); }; });
}

}  // namespace espalier
