// One call of a leaf forest on tokens of any type, in guarded buffers.
#pragma once

#include <memory>
#include <span>

#include "tests/kernels/forest_run.h"

#if defined(ESPALIER_X86)
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/avx512vnni.h"
#endif
#if defined(ESPALIER_NEON)
#include "kernels/cpu/neon.h"
#endif

namespace espalier::test {

// Every kernel of this machine for a type of rows: those of the tables, and those that the table of a
// processor with more than plain AVX-512 leaves out.
struct NamedKernel {
    std::string name;
    LeafForestKernel run;
};
inline std::vector<NamedKernel> leaf_kernels(TensorType rows) {
    std::vector<NamedKernel> all;
    for (const Isa isa : available_isas())
        all.push_back({name_of(isa), kernel_table(isa).leaf_forest(rows)});
#if defined(ESPALIER_X86)
    const LeafForestKernel used = all.back().run;
    const auto add = [&](const char* name, LeafForestKernel kernel) {
        if (kernel != used) all.push_back({name, kernel});
    };
    if (isa_available(Isa::avx512) && rows == TensorType::bf16)
        add("avx512 without bf16", avx512::leaf_forest_bf16);
    if (isa_available(Isa::avx512) && rows == TensorType::s8)
        add("avx512 without vnni", avx512::leaf_forest_s8);
    if (cpu_has_vnni() && rows == TensorType::s8)
        add("avx512 with vnni, without bf16", avx512vnni::leaf_forest_s8);
#endif
#if defined(ESPALIER_NEON)
    if (cpu_has_dotprod() && rows == TensorType::s8)
        all.push_back({"neon without dotprod", neon::leaf_forest_s8});
    if (cpu_has_arm_bf16() && rows == TensorType::bf16)
        all.push_back({"neon without bf16", neon::leaf_forest_bf16});
#endif
    return all;
}

// Random tokens stored as `type`, and the values that they stand for.
struct TypedTokens {
    TypedTokens(TensorType type_, size_t tokens_, size_t hidden_, Random& random, const ForestSize& size)
        : type(type_),
          tokens(tokens_),
          hidden(hidden_),
          values(tokens * hidden),
          stored(tokens * hidden * bytes_of(type)),
          scale(tokens) {
        fill(values, random, size, 1);
        for (size_t t = 0; t < tokens; ++t)
            store(t);
    }
    // Rounds a token's values to the type.
    void store(size_t t) {
        float* row = values.data() + t * hidden;
        std::byte* place = stored.data() + t * hidden * bytes_of(type);
        if (type == TensorType::s8) {
            scale[t] = row_scale(row, hidden);
            quantize_row(row, scale[t], reinterpret_cast<int8_t*>(place), hidden);
        }
        for (size_t i = 0; i < hidden; ++i) {
            if (type == TensorType::bf16) {
                const uint16_t rounded = bfloat_from_float(row[i]);
                std::memcpy(place + i * 2, &rounded, 2);
                row[i] = float_from_bfloat(rounded);
            } else if (type == TensorType::f32) {
                std::memcpy(place + i * 4, &row[i], 4);
            } else {
                row[i] = scale[t] * static_cast<float>(static_cast<int8_t>(place[i]));
            }
        }
    }
    TensorType type;
    size_t tokens, hidden;
    Buffer<float> values;
    Buffer<std::byte> stored;
    Buffer<float> scale;
};

// Tokens first, first + 1, … ; y0: what those are added to, or null where y is overwritten. leaf_ends: the
// walks first, then leaves up to before each of these by a call of their own; or all at once.
inline std::unique_ptr<ForestResult> run_leaves(LeafFixture& fixture, const NamedKernel& kernel,
                                                const TypedTokens& x, const float* y0, size_t first,
                                                size_t tokens, std::span<const size_t> leaf_ends = {}) {
    const LeafForest& f = fixture.forest;
    auto result = std::make_unique<ForestResult>(tokens, f.hidden, f.trees, scratch_bytes(f, tokens));
    for (float& value : result->y)
        value = NAN;  // what is overwritten does not matter
    if (y0 != nullptr) std::memcpy(result->y.data(), y0, tokens * f.hidden * sizeof(float));
    ForestCall call;
    call.x = x.stored.data() + first * f.hidden * bytes_of(x.type);
    call.x_scale = x.type == TensorType::s8 ? x.scale.data() + first : nullptr;
    call.tokens = tokens;
    call.y = result->y.data();
    call.accumulate = y0 != nullptr;
    call.routes = result->routes();
    call.scratch = result->scratch.data();
    if (!leaf_ends.empty()) {
        call.step = ForestStep::walk;
        kernel.run(f, call);
        call.step = ForestStep::leaves;
    }
    for (const size_t end : leaf_ends) {
        call.last_leaf = end;
        kernel.run(f, call);
        call.first_leaf = end;
    }
    if (leaf_ends.empty()) kernel.run(f, call);
    CHECK(result->intact());
    CHECK(fixture.intact());
    return result;
}

}  // namespace espalier::test
