#include "apps/fuse/analysis.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace espalier {
namespace {

// Hidden states in front of the first block and behind each, of one pass.
class States {
   public:
    States(size_t blocks, size_t hidden) : hidden_(hidden), layers_(blocks + 1) {}

    // A decoder's pass goes through the blocks chunk by chunk.
    static void keep(void* self, uint32_t layer, const float* values, size_t tokens) {
        auto* states = static_cast<States*>(self);
        auto& kept = states->layers_[layer];
        kept.insert(kept.end(), values, values + tokens * states->hidden_);
    }
    void clear() {
        for (auto& layer : layers_)
            layer.clear();
    }
    size_t tokens() const { return layers_[0].size() / hidden_; }
    std::span<const float> state(size_t layer, size_t token) const {
        return std::span(layers_[layer]).subspan(token * hidden_, hidden_);
    }

   private:
    size_t hidden_;
    std::vector<std::vector<float>> layers_;
};

// Of vectors given component by component. One that is zero has no direction: as far from any other as can
// be, but equal to itself.
struct Cosine {
    double ab = 0, aa = 0, bb = 0;
    void add(double a, double b) {
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    double value() const {
        if (aa == 0 || bb == 0) return aa == bb ? 1 : 0;
        return ab / std::sqrt(aa * bb);
    }
};

class Analyser {
   public:
    Analyser(Context& context, const TokenizedTexts& sample,
             const std::function<void(uint64_t done, uint64_t total)>& progress)
        : context_(context),
          spec_(context.model().spec()),
          sample_(sample),
          progress_(progress),
          whole_(spec_.blocks.size(), spec_.hidden),
          without_(spec_.blocks.size(), spec_.hidden) {
        for (const BlockSpec& block : spec_.blocks) {
            if (block.has(block_flag::parallel))
                throw Error(Status::unsupported,
                            "%s: blocks that run beside each other are not analysed: analyse the model that "
                            "they come from",
                            context.model().file().source());
        }
        out_.blocks = spec_.blocks.size();
        out_.dependency.assign(out_.blocks * out_.blocks, 0);
        out_.cosine.assign(out_.blocks, 0);
        for (uint32_t b = 0; b < out_.blocks; ++b) {
            if (spec_.blocks[b].has(block_flag::attention)) out_.removals.push_back({b, 0});
        }
        removed_.resize(out_.removals.size());
    }

    Analysis run() {
        for_each_pass(context_, sample_, [&](const Batch&) { ++passes_; });
        total_ = passes_ * (1 + (out_.blocks > 0 ? out_.blocks - 1 : 0) + out_.removals.size());
        for_each_pass(context_, sample_, [&](const Batch& batch) { analyse_pass(batch); });
        const auto tokens = static_cast<double>(out_.tokens);
        for (double& value : out_.dependency)
            value /= tokens;
        for (double& value : out_.cosine)
            value /= tokens;
        const bool decoder = spec_.family == Family::decoder;
        if (decoder) out_.perplexity = quality_.perplexity();
        for (size_t r = 0; r < out_.removals.size(); ++r)
            out_.removals[r].cost =
                decoder ? removed_[r].perplexity() : 1 - mean_cosine(quality_, removed_[r], spec_.hidden);
        return std::move(out_);
    }

   private:
    void analyse_pass(const Batch& batch) {
        whole_.clear();
        context_.on_layer(States::keep, &whole_);
        run_pass(context_, batch, quality_);
        step();
        out_.tokens += whole_.tokens();
        add_cosines();
        context_.on_layer(States::keep, &without_);
        for (size_t i = 0; i + 1 < out_.blocks; ++i) {
            without_.clear();
            context_.leave_out(i, Observers::none);
            run_blocks(context_, batch);
            step();
            for (size_t j = i + 1; j < out_.blocks; ++j)
                add_dependency(i, j);
        }
        context_.on_layer(nullptr, nullptr);
        for (size_t r = 0; r < out_.removals.size(); ++r) {
            context_.leave_out(Observers::none, out_.removals[r].block);
            run_pass(context_, batch, removed_[r]);
            step();
        }
        context_.leave_out(Observers::none, Observers::none);
    }

    void add_cosines() {
        for (size_t t = 0; t < whole_.tokens(); ++t) {
            for (size_t b = 0; b < out_.blocks; ++b) {
                const auto before = whole_.state(b, t), after = whole_.state(b + 1, t);
                Cosine cosine;
                for (size_t i = 0; i < spec_.hidden; ++i)
                    cosine.add(before[i], after[i]);
                out_.cosine[b] += cosine.value();
            }
        }
    }

    void add_dependency(size_t i, size_t j) {
        double sum = 0;
        for (size_t t = 0; t < whole_.tokens(); ++t) {
            const auto x = whole_.state(j, t), y = whole_.state(j + 1, t);
            const auto x_without = without_.state(j, t), y_without = without_.state(j + 1, t);
            Cosine cosine;
            for (size_t c = 0; c < spec_.hidden; ++c)
                cosine.add(static_cast<double>(y[c]) - x[c],
                           static_cast<double>(y_without[c]) - x_without[c]);
            sum += 1 - cosine.value();
        }
        out_.dependency[i * out_.blocks + j] += sum;
    }

    void step() { progress_(++done_, total_); }

    Context& context_;
    const ModelSpec& spec_;
    const TokenizedTexts& sample_;
    const std::function<void(uint64_t done, uint64_t total)>& progress_;
    States whole_, without_;
    Analysis out_;
    Quality quality_;
    std::vector<Quality> removed_;
    uint64_t passes_ = 0, done_ = 0, total_ = 0;
};

}  // namespace

Analysis analyse(Context& context, const TokenizedTexts& sample,
                 const std::function<void(uint64_t done, uint64_t total)>& progress) {
    return Analyser(context, sample, progress).run();
}

std::vector<uint32_t> cheapest_attentions(const Analysis& analysis, size_t count) {
    if (count > analysis.removals.size())
        throw Error(Status::invalid_argument,
                    "--drop-attention: expected at most %zu (blocks with attention), found %zu",
                    analysis.removals.size(), count);
    auto removals = analysis.removals;
    std::stable_sort(removals.begin(), removals.end(),
                     [](const auto& a, const auto& b) { return a.cost < b.cost; });
    std::vector<uint32_t> blocks;
    for (size_t i = 0; i < count; ++i)
        blocks.push_back(removals[i].block);
    std::sort(blocks.begin(), blocks.end());
    return blocks;
}

}  // namespace espalier
