// llama2.c's checkpoints (github.com/karpathy/llama2.c, export.py, version 0): seven 32-bit integers, then
// float32 tensors one after another, those of all layers together:
//   embeddings [vocabulary, dim], attention norms [layers, dim], wq [layers, dim, dim], wk and wv [layers,
//   kv, dim], wo [layers, dim, dim], ffn norms [layers, dim], w1 (gate), w2 (down), w3 (up), final norm
//   [dim], cosines and sines [seq_len, head / 2] (not used), and where vocab_size is negative wcls
//   [vocabulary, dim]
#include <algorithm>
#include <array>
#include <cstring>

#include "apps/importers/llama.h"
#include "base/error.h"
#include "model_format/layout.h"

namespace espalier {
namespace {

class Checkpoint {
   public:
    explicit Checkpoint(const std::string& path)
        : path_(path), file_(path.c_str(), true, std::pmr::get_default_resource()) {}

    LlamaSizes sizes() const {
        std::array<int32_t, 7> h{};
        if (file_.bytes().size() < sizeof(h))
            throw Error(Status::bad_model, "%s: header: expected %zu bytes, found %zu", path_.c_str(),
                        sizeof(h), file_.bytes().size());
        std::memcpy(h.data(), file_.bytes().data(), sizeof(h));
        if (h[0] == 0x616b3432)
            throw Error(Status::unsupported, "%s: version: expected 0 (export.py --version 0), found %d",
                        path_.c_str(), h[1]);
        LlamaSizes s;
        s.hidden = field("dim", h[0], layout::max_dimension);
        const uint32_t inner = field("hidden_dim", h[1], layout::max_dimension);
        const uint32_t layers = field("n_layers", h[2], layout::max_blocks);
        s.heads = field("n_heads", h[3], 65536);
        const uint32_t kv_heads = field("n_kv_heads", h[4], s.heads);
        s.blocks.assign(layers, {kv_heads, inner});
        s.tied = h[5] > 0;
        s.vocabulary =
            field("vocab_size", s.tied ? h[5] : -std::max(h[5], -INT32_MAX), layout::max_dimension);
        s.positions = field("seq_len", h[6], layout::max_dimension);
        if (s.hidden % s.heads != 0 || s.heads % kv_heads != 0 || s.hidden / s.heads % 2 != 0)
            throw Error(Status::bad_model,
                        "%s: n_heads, n_kv_heads: expected n_heads to divide dim %u into an even number, and "
                        "n_kv_heads to divide n_heads; found %u and %u",
                        path_.c_str(), s.hidden, s.heads, kv_heads);
        s.head_dimension = s.hidden / s.heads;
        s.norm_epsilon = 1e-5F;
        s.rope_theta = 10000.0F;
        s.pairing = RopePairing::neighbours;
        return s;
    }

    // The place, in floats, of the next `count`: below 2^60, as fields are, so that thirteen do not wrap.
    uint64_t take(uint64_t count) {
        const uint64_t place = next_;
        next_ += count;
        return place;
    }
    void check_size() const {
        if (next_ == floats() && (file_.bytes().size() - header) % sizeof(float) == 0) return;
        throw Error(Status::bad_model,
                    "%s: size: expected %llu float32 values behind the header (its shapes), found %llu bytes",
                    path_.c_str(), static_cast<unsigned long long>(next_),
                    static_cast<unsigned long long>(file_.bytes().size() - header));
    }
    void append(uint64_t place, uint64_t count, std::vector<float>& values) const {
        const size_t before = values.size();
        values.resize(before + count);
        std::memcpy(values.data() + before, file_.bytes().data() + header + place * sizeof(float),
                    count * sizeof(float));
    }

   private:
    static constexpr size_t header = 28;

    uint64_t floats() const { return (file_.bytes().size() - header) / sizeof(float); }
    uint32_t field(const char* name, int32_t value, uint32_t most) const {
        if (value < 1 || static_cast<uint32_t>(value) > most)
            throw Error(Status::bad_model, "%s: %s: expected 1 to %u, found %d", path_.c_str(), name, most,
                        value);
        return static_cast<uint32_t>(value);
    }

    std::string path_;
    MappedFile file_;
    uint64_t next_ = 0;
};

struct Stretch {
    uint64_t place, count;
};

void add(Import& import, const std::shared_ptr<Checkpoint>& file, const std::string& target,
         std::vector<uint64_t> shape, std::vector<Stretch> stretches) {
    const auto read = [file, stretches = std::move(stretches)] {
        std::vector<float> values;
        for (const Stretch& s : stretches)
            file->append(s.place, s.count, values);
        return values;
    };
    import.tensors.push_back({target, std::move(shape), read});
}

}  // namespace

std::unique_ptr<Import> import_llama2c(const std::string& path, const ConvertOptions& options) {
    if (options.tokenizer.empty())
        throw Error(Status::invalid_argument, "%s: expected --tokenizer FILE beside a llama2.c checkpoint",
                    path.c_str());
    auto file = std::make_shared<Checkpoint>(path);
    const LlamaSizes s = file->sizes();
    auto import = std::make_unique<Import>();
    describe_llama(import->spec, s);
    const uint64_t h = s.hidden, w = s.blocks.front().inner, layers = s.blocks.size(), v = s.vocabulary,
                   kv = uint64_t{s.blocks.front().kv_heads} * s.head_dimension;
    const uint64_t words = file->take(v * h), attention_norm = file->take(layers * h),
                   wq = file->take(layers * h * h), wk = file->take(layers * kv * h),
                   wv = file->take(layers * kv * h), wo = file->take(layers * h * h),
                   ffn_norm = file->take(layers * h), gate = file->take(layers * w * h),
                   down = file->take(layers * h * w), up = file->take(layers * w * h),
                   final_norm = file->take(h);
    file->take(uint64_t{s.positions} * s.head_dimension);
    const uint64_t output = s.tied ? 0 : file->take(v * h);
    file->check_size();

    add(*import, file, "embeddings.word", {v, h}, {{words, v * h}});
    for (uint64_t l = 0; l < layers; ++l) {
        const std::string to = "blocks." + std::to_string(l) + ".";
        add(*import, file, to + "attention.qkv.weight", {h + 2 * kv, h},
            {{wq + l * h * h, h * h}, {wk + l * kv * h, kv * h}, {wv + l * kv * h, kv * h}});
        add(*import, file, to + "attention.out.weight", {h, h}, {{wo + l * h * h, h * h}});
        add(*import, file, to + "attention.norm.weight", {h}, {{attention_norm + l * h, h}});
        add(*import, file, to + "parts.0.up.weight", {w, h}, {{up + l * w * h, w * h}});
        add(*import, file, to + "parts.0.gate.weight", {w, h}, {{gate + l * w * h, w * h}});
        add(*import, file, to + "parts.0.down.weight", {h, w}, {{down + l * h * w, h * w}});
        add(*import, file, to + "ffn.norm.weight", {h}, {{ffn_norm + l * h, h}});
    }
    add(*import, file, "final_norm.weight", {h}, {{final_norm, h}});
    if (!s.tied) add(*import, file, "output.weight", {v, h}, {{output, v * h}});
    import->spec.tokenizer.max_tokens = limited_tokens(import->spec, options.max_tokens);
    if (options.tokenizer.ends_with(".model")) {
        import_sentencepiece(*import, options.tokenizer);
        import->spec.tokenizer.flags |= tokenizer_flag::add_begin;
    } else {
        import_scored_pieces(*import, options.tokenizer);
    }
    // llama2.c's texts are told apart by what begins them: run.c stops at 1, not at 2.
    import->spec.tokenizer.begin = import->spec.tokenizer.end = 1;
    return import;
}

}  // namespace espalier
