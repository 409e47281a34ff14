#include "apps/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace espalier {
namespace {

ContextOptions with_threads(int threads) {
    ContextOptions options;
    options.threads = threads;
    return options;
}

void require_equal(const char* what, uint64_t a, uint64_t b) {
    if (a != b)
        throw Error(Status::invalid_argument, "compare: %s: expected equal ones, found %llu and %llu", what,
                    static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
}

double cosine(std::span<const float> a, std::span<const float> b) {
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        ab += double{a[i]} * double{b[i]};
        aa += double{a[i]} * double{a[i]};
        bb += double{b[i]} * double{b[i]};
    }
    return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : aa == bb ? 1 : 0;
}

}  // namespace

void ModelComparison::Distance::add(const float* a, const float* b, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const double d = double{b[i]} - double{a[i]};
        difference += d * d;
        size += double{a[i]} * double{a[i]};
    }
}

double ModelComparison::Distance::relative() const {
    return size > 0 ? std::sqrt(difference / size) : 0;
}

double ModelComparison::ForestPair::share() const {
    return walks > 0 ? static_cast<double>(equal) / static_cast<double>(walks) : 1;
}

ModelComparison::ModelComparison(const Model& a, const Model& b, int threads)
    : a_model_(a),
      b_model_(b),
      a_(a, with_threads(threads)),
      b_(b, with_threads(threads)),
      by_layer_(a.spec().blocks.size() == b.spec().blocks.size()) {
    for (const Model* model : {&a, &b}) {
        if (model->spec().family != Family::encoder)
            throw Error(Status::unsupported,
                        "%s: compare: expected an encoder, found a decoder (perplexity compares them)",
                        model->file().source());
    }
    require_equal("hidden size", a.spec().hidden, b.spec().hidden);
    require_equal("vocabulary", a.spec().vocabulary, b.spec().vocabulary);
    if (by_layer_) {
        layers_.resize(a.spec().blocks.size() + 1);
        hidden_.resize(layers_.size());
    }
    pair_forests();
    pair_heads();
}

// Forests that stand at the same place in both and have the same trees.
void ModelComparison::pair_forests() {
    const auto &a = a_model_.prepared().blocks, &b = b_model_.prepared().blocks;
    for (size_t block = 0; block < std::min(a.size(), b.size()) && by_layer_; ++block) {
        for (size_t p = 0; p < std::min(a[block].parts.size(), b[block].parts.size()); ++p) {
            const PreparedPart &x = a[block].parts[p], &y = b[block].parts[p];
            if (!x.spec->is_forest() || x.spec->kind != y.spec->kind || x.spec->trees != y.spec->trees ||
                x.spec->depth != y.spec->depth)
                continue;
            forests_.push_back({block, p, x.forest, y.forest, x.spec->trees});
        }
    }
}

void ModelComparison::pair_heads() {
    const auto &a = a_model_.spec().heads, &b = b_model_.spec().heads;
    for (uint32_t i = 0; i < a.size(); ++i) {
        for (uint32_t j = 0; j < b.size(); ++j) {
            if (a[i].name == b[j].name && a[i].outputs == b[j].outputs && a[i].kind == b[j].kind)
                heads_.push_back({std::string(a[i].name), i, j, a[i].kind == HeadKind::regression});
        }
    }
}

void ModelComparison::add(std::string_view text, std::optional<std::string_view> pair) {
    const auto tokens = a_.tokenize(text, pair);
    if (tokens.ids.size() > b_.max_tokens())
        throw Error(Status::too_long, "compare: text %llu: expected at most %zu tokens, found %zu",
                    static_cast<unsigned long long>(texts_ + 1), b_.max_tokens(), tokens.ids.size());
    const Batch batch = tokens.batch();
    const size_t hidden = a_model_.spec().hidden;
    if (by_layer_) {
        a_.on_layer(
            [](void* user, uint32_t layer, const float* values, size_t count) {
                auto& self = *static_cast<ModelComparison*>(user);
                self.hidden_[layer].assign(values, values + count * self.a_model_.spec().hidden);
            },
            this);
        b_.on_layer(
            [](void* user, uint32_t layer, const float* values, size_t) {
                auto& self = *static_cast<ModelComparison*>(user);
                const auto& other = self.hidden_[layer];
                self.layers_[layer].add(other.data(), values, other.size());
            },
            this);
    }
    const auto first = a_.encode(batch), second = b_.encode(batch);
    last_.add(first.data(), second.data(), batch.tokens() * hidden);
    for (ForestPair& forest : forests_) {
        const uint32_t *x = a_.routes(forest.a).leaf, *y = b_.routes(forest.b).leaf;
        for (size_t i = 0; i < batch.tokens() * forest.trees; ++i)
            forest.equal += x[i] == y[i] ? 1 : 0;
        forest.walks += batch.tokens() * forest.trees;
    }
    a_.on_layer(nullptr, nullptr);
    b_.on_layer(nullptr, nullptr);
    ++texts_;
    tokens_ += batch.tokens();
    add_embedding(batch);
    add_heads(batch);
}

void ModelComparison::add_embedding(const Batch& batch) {
    const double c = cosine(a_.embed(batch), b_.embed(batch));
    cosine_sum_ += c;
    least_cosine_ = std::min(least_cosine_, c);
}

void ModelComparison::add_heads(const Batch& batch) {
    for (HeadPair& head : heads_) {
        const auto x = a_.score(batch, head.a), y = b_.score(batch, head.b);
        head.agree += most_likely(x).index == most_likely(y).index ? 1 : 0;
        for (size_t i = 0; i < x.size(); ++i)
            head.largest = std::max(head.largest, std::fabs(double{x[i]} - double{y[i]}));
    }
}

Json ModelComparison::json() const {
    const double texts = static_cast<double>(std::max<uint64_t>(texts_, 1));
    Json j{{"texts", texts_}, {"tokens", tokens_}, {"layers", Json::array()}};
    for (size_t l = 0; l < layers_.size(); ++l)
        j["layers"].push_back({{"layer", l}, {"relative_error", layers_[l].relative()}});
    j["hidden_relative_error"] = last_.relative();
    j["forests"] = Json::array();
    for (const ForestPair& f : forests_)
        j["forests"].push_back({{"block", f.block}, {"part", f.part}, {"equal_leaves", f.share()}});
    j["cosine"] = {{"mean", texts_ > 0 ? cosine_sum_ / texts : 1}, {"least", least_cosine_}};
    j["heads"] = Json::array();
    for (const HeadPair& h : heads_) {
        Json entry{{"name", h.name}, {"largest_difference", h.largest}};
        if (!h.regression) entry["agreement"] = static_cast<double>(h.agree) / texts;
        j["heads"].push_back(std::move(entry));
    }
    return j;
}

void ModelComparison::print() const {
    const Json j = json();
    std::printf("%llu texts, %llu tokens\n", static_cast<unsigned long long>(texts_),
                static_cast<unsigned long long>(tokens_));
    if (by_layer_) {
        std::printf("after          relative error   equal leaves\n");
        for (size_t l = 0; l < layers_.size(); ++l) {
            const std::string name = l == 0 ? "embedding" : "block " + std::to_string(l - 1);
            std::printf("%-14s %14.2e", name.c_str(), layers_[l].relative());
            for (const ForestPair& f : forests_) {
                if (f.block + 1 == l) std::printf("   %10.2f %%", 100 * f.share());
            }
            std::printf("\n");
        }
    } else {
        std::printf("blocks: %zu and %zu, so that no layers are compared\n", a_model_.spec().blocks.size(),
                    b_model_.spec().blocks.size());
    }
    std::printf("%-14s %14.2e\n", "hidden states", last_.relative());
    std::printf("cosine of embeddings: mean %.6f, least %.6f\n", j["cosine"]["mean"].get<double>(),
                least_cosine_);
    for (const Json& head : j["heads"]) {
        std::printf("head %s:", head["name"].get<std::string>().c_str());
        if (head.contains("agreement"))
            std::printf(" same label %.2f %%,", 100 * head["agreement"].get<double>());
        std::printf(" largest difference of an output %.3g\n", head["largest_difference"].get<double>());
    }
}

}  // namespace espalier
