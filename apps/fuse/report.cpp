#include "apps/fuse/report.h"

#include <cstdio>

#include "apps/clock.h"
#include "apps/model_work.h"
#include "apps/quantile.h"
#include "apps/synthetic.h"

namespace espalier {
namespace {

class Subject {
   public:
    Subject(const Model& model, int threads)
        : model_(model), decoder_(model.spec().family == Family::decoder) {
        ContextOptions options;
        options.threads = threads;
        context_ = std::make_unique<Context>(model, options);
        const size_t room = decoder_ ? context_->decoder().window() - 1 : context_->max_tokens();
        ids_.resize(std::min({room, size_t{128}, size_t{model.spec().max_positions}}));
    }

    // An encoder's pass over one sequence; a decoder's over a prompt, and then one token more.
    void call() {
        random_ids(model_.spec(), state_, ids_);
        const auto start = Clock::now();
        if (!decoder_) {
            const std::array<uint32_t, 2> offsets{0, static_cast<uint32_t>(ids_.size())};
            context_->encode({ids_, {}, offsets});
            times_.push_back(milliseconds_since(start));
            return;
        }
        context_->decoder().clear();
        context_->decoder().append(ids_);
        times_.push_back(milliseconds_since(start));
        const auto between = Clock::now();
        context_->decoder().append({ids_.data(), 1});
        next_times_.push_back(milliseconds_since(between));
    }

    // Of the sample; or nothing where there is none.
    Quality quality(const TokenizedTexts& sample) {
        Quality quality;
        for_each_pass(*context_, sample, [&](const Batch& batch) { run_pass(*context_, batch, quality); });
        return quality;
    }

    Json describe() const {
        const ModelSpec& spec = model_.spec();
        size_t attention = 0;
        for (const BlockSpec& block : spec.blocks)
            attention += block.has(block_flag::attention) ? 1 : 0;
        // work_of says how many for one sequence of this length.
        const double work = static_cast<double>(work_of(model_, *context_, 1, ids_.size()).multiply_adds);
        Json j{{"blocks", spec.blocks.size()},
               {"attention_blocks", attention},
               {"multiply_adds_per_token", work / static_cast<double>(ids_.size())},
               {"file_bytes", model_.file().bytes().size()},
               {"parameters", model_.parameters()},
               {"tokens_timed", ids_.size()}};
        j[decoder_ ? "prefill_ms" : "encode_ms"] = quantile(times_, 0.5);
        if (!decoder_) return j;
        j["decode_ms"] = quantile(next_times_, 0.5);
        j["window"] = context_->decoder().window();
        j["kv_cache_bytes"] = KeyValueCache::bytes(model_, context_->decoder().window());
        return j;
    }

   private:
    const Model& model_;
    bool decoder_;
    std::unique_ptr<Context> context_;
    std::vector<int32_t> ids_;
    uint64_t state_ = 1;
    std::vector<double> times_, next_times_;
};

void time_in_turns(Subject& a, Subject& b, double seconds) {
    constexpr size_t fewest = 5;
    const auto start = Clock::now();
    for (size_t round = 0; round < fewest || milliseconds_since(start) < 2000 * seconds; ++round) {
        a.call();
        b.call();
    }
}

void print_row(const Comparison& c, const char* label, const char* key, double unit, int digits) {
    if (!c.before.contains(key)) return;
    const double before = c.before[key].get<double>() / unit, after = c.after[key].get<double>() / unit;
    std::printf("%-34s %14.*f %14.*f", label, digits, before, digits, after);
    if (before != 0) std::printf("   %.3fx", after / before);
    std::printf("\n");
}

}  // namespace

Comparison compare_models(const Model& before, const Model& after, const TokenizedTexts* sample,
                          const ComparisonOptions& options) {
    Subject first(before, options.threads), second(after, options.threads);
    time_in_turns(first, second, options.seconds);
    Comparison out{first.describe(), second.describe(), std::nullopt};
    if (sample == nullptr) return out;
    const Quality a = first.quality(*sample), b = second.quality(*sample);
    if (before.spec().family == Family::decoder) {
        out.before["perplexity"] = a.perplexity();
        out.after["perplexity"] = b.perplexity();
    } else {
        out.embedding_cosine = mean_cosine(a, b, before.spec().hidden);
    }
    return out;
}

void print_comparison(const Comparison& c) {
    std::printf("%-34s %14s %14s\n", "", "before", "after");
    print_row(c, "blocks", "blocks", 1, 0);
    print_row(c, "blocks with attention", "attention_blocks", 1, 0);
    print_row(c, "perplexity", "perplexity", 1, 4);
    if (c.embedding_cosine)
        std::printf("%-34s %14s %14.4f\n", "cosine of embeddings, before: after", "", *c.embedding_cosine);
    print_row(c, "multiply-adds a token, millions", "multiply_adds_per_token", 1e6, 3);
    print_row(c, "file, MB", "file_bytes", 1e6, 3);
    print_row(c, "parameters, millions", "parameters", 1e6, 3);
    print_row(c, "key-value cache, KiB", "kv_cache_bytes", 1024, 1);
    print_row(c, "one sequence, ms", "encode_ms", 1, 3);
    print_row(c, "prompt, ms", "prefill_ms", 1, 3);
    print_row(c, "one token more, ms", "decode_ms", 1, 3);
    std::printf("medians over random ids, the two models in turns; sequence or prompt: %zu tokens\n",
                c.before["tokens_timed"].get<size_t>());
}

}  // namespace espalier
