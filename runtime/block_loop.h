// The one block loop: a block is an optional attention sublayer and the sum of its parts, each wrapped by the
// model's norm placement. It does not know where it runs: `on` has the hidden states x, what the current
// sublayer reads and what it gives, on the CPU (encoder.h) or on another device (cuda/cuda_encoder.h).
#pragma once

#include "model_format/spec.h"
#include "runtime/batch.h"

namespace espalier {

// Whether block b reads what the block before it read.
inline bool is_beside(const ModelSpec& spec, size_t b) {
    return b < spec.blocks.size() && spec.blocks[b].has(block_flag::parallel);
}

// Whom `Layers` lets in.
class BlockLoop {
   public:
    template <class Layers>
    static void run(Layers& on, const ModelSpec& spec, const Batch& batch, const Observers& observers);

   private:
    template <class Layers>
    static void block(Layers& on, const ModelSpec& spec, size_t b, const Batch& batch,
                      const Observers& observers);
    // Dense parts, then leaf forests, then neuron forests. The first writes, all others add.
    template <class Layers>
    static void parts(Layers& on, const ModelSpec& spec, size_t b);
};

template <class Layers>
void BlockLoop::parts(Layers& on, const ModelSpec& spec, size_t b) {
    const auto all = spec.parts_of(spec.blocks[b]);
    bool written = false;
    for (const PartKind kind : {PartKind::dense, PartKind::leaf_forest, PartKind::neuron_forest}) {
        for (size_t p = 0; p < all.size(); ++p) {
            if (all[p].kind == kind) written |= on.run_part(b, p, written);
        }
    }
    if (!written) on.clear_output();
}

template <class Layers>
void BlockLoop::block(Layers& on, const ModelSpec& spec, size_t b, const Batch& batch,
                      const Observers& observers) {
    const bool pre = spec.norm_placement == NormPlacement::pre;
    if (spec.blocks[b].has(block_flag::attention) && b != observers.without_attention) {
        if (pre) on.normalise_input(on.attention_norm(b));
        on.attention(b, batch);
        on.add_output(on.attention_norm(b));
    }
    if (spec.blocks[b].part_count > 0) {
        if (pre) on.normalise_input(on.ffn_norm(b));
        on.show_ffn_input(observers, b);
        parts(on, spec, b);
        on.add_output(on.ffn_norm(b));
    }
}

template <class Layers>
void BlockLoop::run(Layers& on, const ModelSpec& spec, const Batch& batch, const Observers& observers) {
    on.embed(batch);
    on.show_layer(observers, 0);
    for (size_t b = 0; b < spec.blocks.size(); ++b) {
        on.check_cancelled();
        const bool beside = is_beside(spec, b), beside_next = is_beside(spec, b + 1);
        if (beside) on.go_back_beside();
        if (beside_next && !beside) on.start_beside();
        if (b != observers.without_block) block(on, spec, b, batch, observers);
        if (beside || beside_next) on.collect_beside();
        if (beside && !beside_next) on.end_beside();
        on.show_layer(observers, b + 1);
    }
    on.final_norm();
}

}  // namespace espalier
