// Attention of all heads of one sequence, MiniLM's shape (12 x 32) and BERT's (12 x 64).
#include <string>

#include "kernels/bench_support.h"

namespace espalier::bench {
namespace {

void attention(benchmark::State& state, Isa isa, size_t dimension, size_t tokens) {
    const AttentionShape shape{12, 12, dimension, weight_scale(dimension)};
    Inputs inputs(tokens * shape.row_stride(), sets_for(tokens));
    Numbers out(tokens * shape.query_width()), scratch(attention_scratch(shape, tokens));
    for (auto _ : state) {
        const float* qkv = inputs.next();
        for (size_t head = 0; head < shape.heads; ++head)
            kernel_table(isa).attention(shape, qkv, tokens, head, out.data(), scratch.data());
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    }
}

void narrow_attention(benchmark::State& state, NarrowAttentionKernel kernel, size_t dimension,
                      size_t tokens) {
    const AttentionShape shape{12, 12, dimension, weight_scale(dimension)};
    Inputs inputs(tokens * shape.row_stride(), sets_for(tokens));
    Numbers out(tokens * shape.query_width()), scratch(attention_scratch(shape, tokens));
    std::vector<std::vector<uint16_t>> sets(sets_for(tokens));
    for (auto& set : sets) {
        set.resize(tokens * shape.row_stride() + 128);
        kernel_table(Isa::scalar)
            .round(TensorType::bf16, false, inputs.next(), tokens, shape.row_stride(), set.data(), nullptr);
    }
    size_t call = 0;
    for (auto _ : state) {
        const uint16_t* qkv = sets[call++ % sets.size()].data();
        for (size_t head = 0; head < shape.heads; ++head)
            kernel(shape, qkv, tokens, head, out.data(), scratch.data());
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    }
}

const bool registered = [] {
    for (const Isa isa : available_isas()) {
        for (const size_t dimension : {32, 64}) {
            for (const size_t tokens : {8, 32, 128, 512}) {
                const std::string name = "attention:12x" + std::to_string(dimension) + "/" + name_of(isa) +
                                         "/" + std::to_string(tokens);
                benchmark::RegisterBenchmark(name.c_str(), attention, isa, dimension, tokens);
                for (const TensorType type : {TensorType::bf16, TensorType::s8}) {
                    const auto kernel = kernel_table(isa).narrow_attention(type);
                    if (kernel != nullptr)
                        benchmark::RegisterBenchmark((name + "/" + name_of(type)).c_str(), narrow_attention,
                                                     kernel, dimension, tokens);
                }
            }
        }
    }
    return true;
}();

}  // namespace
}  // namespace espalier::bench
