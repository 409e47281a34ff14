// Random models of every kind of part, with ordinary numbers and with bad ones (none at all, below the normal
// range, huge, infinite, NaN), on random tokens: every instruction set gives the answer of the scalar path,
// oneDNN that of our own kernels, and packing and threads change no bit.
//
//   numbers [--models N] [--first N]     200 models by default
//   numbers --answers N                  prints a hash of the 8-bit answers of N models, to be compared
//                                        between processes (ESPALIER_WITHOUT=vnni)
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/error.h"
#include "model_format/hash.h"
#include "tests/harden/answers.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using Random = std::mt19937_64;

uint32_t any(Random& random, uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random() % (high - low + 1));
}
bool maybe(Random& random, uint32_t one_in) {
    return random() % one_in == 0;
}

enum class Numbers { ordinary, denormal, saturating, infinite, nan };

PartSpec random_part(Random& random) {
    PartSpec part;
    part.kind = static_cast<PartKind>(any(random, 1, 3));
    part.activation = static_cast<Activation>(any(random, 1, 5));
    part.flags = (maybe(random, 3) ? 0 : part_flag::up_bias) |
                 (maybe(random, 3) ? 0 : part_flag::output_bias) | (maybe(random, 3) ? part_flag::gated : 0);
    part.tie = static_cast<TieRule>(any(random, 0, 1));
    if (part.kind == PartKind::dense) {
        part.width = any(random, 1, 90);
        return part;
    }
    part.trees = any(random, 1, 4);
    part.depth = any(random, 0, 5);
    if (part.kind == PartKind::leaf_forest) {
        part.leaf_width = any(random, 0, 40);
        if (part.leaf_width == 0) part.flags |= part_flag::output_bias;
    } else if (part.has(part_flag::gated) && maybe(random, 2)) {
        part.routes_on = RoutesOn::gate;
    }
    return part;
}

ModelSpec random_spec(Random& random) {
    ModelSpec spec = bare_spec();
    constexpr uint32_t widths[] = {4, 8, 12, 16, 30, 32, 64, 96, 100};
    spec.hidden = widths[random() % std::size(widths)];
    spec.max_positions = 64;
    spec.tokenizer = {};
    spec.norm = static_cast<Norm>(any(random, 1, 2));
    spec.norm_placement = static_cast<NormPlacement>(any(random, 1, 2));
    spec.norm_epsilon = maybe(random, 4) ? 1e-12F : 1e-5F;
    spec.pooling = static_cast<Pooling>(any(random, 1, 3));
    spec.positions = maybe(random, 3) ? Positions::none : Positions::learned;
    spec.flags = model_flag::embedding_norm | (maybe(random, 2) ? model_flag::final_norm : 0) |
                 (maybe(random, 2) ? model_flag::normalise_output : 0);
    for (uint32_t blocks = any(random, 1, 3); blocks > 0; --blocks) {
        std::vector<PartSpec> parts(any(random, 0, 3));
        for (PartSpec& part : parts)
            part = random_part(random);
        const bool attention = parts.empty() || !maybe(random, 4);
        const bool parallel =
            !spec.blocks.empty() && spec.norm_placement == NormPlacement::pre && maybe(random, 4);
        add_block(spec,
                  (attention ? block_flag::attention | block_flag::qkv_bias : 0) |
                      (parallel ? block_flag::parallel : 0),
                  parts);
        BlockSpec& block = spec.blocks.back();
        if (!attention) continue;
        block.kv_heads = any(random, 1, 2);
        block.heads = block.kv_heads * any(random, 1, 3);
        block.head_dimension = any(random, 1, 40);
    }
    add_head(spec, "head", HeadKind::classifier, any(random, 1, 20), {}, maybe(random, 2) ? 24 : 0);
    return spec;
}

// Weights scaled by their inputs, so that activations keep their size; then some are spoilt.
void shape_numbers(std::vector<TensorSource>& tensors, Numbers numbers, Random& random) {
    for (TensorSource& tensor : tensors) {
        if (tensor.type != TensorType::f32 || tensor.name.ends_with("norm.weight")) continue;
        auto bytes = tensor.data();
        const size_t count = bytes.size() / sizeof(float);
        auto* values = reinterpret_cast<float*>(bytes.data());
        const bool rows = tensor.dimensions.size() > 1;
        float factor = rows ? 1.7F / std::sqrt(static_cast<float>(tensor.dimensions.back())) : 1;
        if (numbers == Numbers::denormal && maybe(random, 3)) factor = 1e-39F;
        if (numbers == Numbers::saturating && maybe(random, 3)) factor *= 300;
        for (size_t i = 0; i < count; ++i)
            values[i] *= factor;
        if (numbers == Numbers::infinite && maybe(random, 6)) values[random() % count] = INFINITY;
        if (numbers == Numbers::nan && maybe(random, 6)) values[random() % count] = NAN;
        if (maybe(random, 10)) std::fill_n(values, std::min<size_t>(count, tensor.dimensions.back()), 0.0F);
        tensor.data = [bytes = std::move(bytes)] { return bytes; };
    }
}

struct Case {
    ModelSpec spec;
    Numbers numbers;
    std::vector<int32_t> ids;
    std::vector<uint32_t> offsets{0};

    Batch batch() const { return {ids, {}, offsets}; }
};

Case random_case(uint64_t number, std::vector<AlignedBytes>& file) {
    Random random(number * 7919 + 1);
    Case c;
    c.spec = random_spec(random);
    c.numbers = maybe(random, 2) ? Numbers::ordinary : static_cast<Numbers>(any(random, 1, 4));
    const TensorType one = maybe(random, 3) ? TensorType::f16 : TensorType::f32;
    auto tensors = random_tensors(
        c.spec, [&](const TensorNeed&) { return maybe(random, 4) ? TensorType::s8 : one; }, number + 1);
    shape_numbers(tensors, c.numbers, random);
    file.push_back(model_to_memory(c.spec, std::move(tensors)));
    const bool equal_tokens = maybe(random, 6);
    for (uint32_t s = any(random, 1, 6); s > 0; --s) {
        for (uint32_t t = any(random, 1, 30); t > 0; --t)
            c.ids.push_back(equal_tokens ? 5 : static_cast<int32_t>(random() % c.spec.vocabulary));
        c.offsets.push_back(static_cast<uint32_t>(c.ids.size()));
    }
    return c;
}

Answers answers(std::span<const std::byte> file, const Batch& batch, Isa isa, const char* backend,
                const char* precision, int threads = 1) {
    ModelOptions options;
    options.isa = name_of(isa);
    options.backend = backend;
    options.precision = precision;
    const auto model = Model::from_memory(file, options);
    ContextOptions shape;
    shape.threads = threads;
    shape.max_tokens = static_cast<uint32_t>(batch.tokens());
    shape.max_sequences = static_cast<uint32_t>(batch.sequences());
    Context context(*model, shape);
    return answers_of(context, batch);
}

// Hidden states of each sequence by itself, end to end.
std::vector<float> one_by_one(std::span<const std::byte> file, const Case& c, Isa isa,
                              const char* precision) {
    ModelOptions options;
    options.isa = name_of(isa);
    options.backend = "native";
    options.precision = precision;
    const auto model = Model::from_memory(file, options);
    Context context(*model, {});
    std::vector<float> all;
    for (size_t s = 0; s + 1 < c.offsets.size(); ++s) {
        const uint32_t length = c.offsets[s + 1] - c.offsets[s], ends[] = {0, length};
        append(all, context.encode({std::span(c.ids).subspan(c.offsets[s], length), {}, ends}));
    }
    return all;
}

// The sign of a NaN is no part of an answer.
bool same_bits(std::span<const float> a, std::span<const float> b) {
    bool same = a.size() == b.size();
    for (size_t i = 0; i < a.size() && same; ++i)
        same = std::memcmp(&a[i], &b[i], sizeof(float)) == 0 || (std::isnan(a[i]) && std::isnan(b[i]));
    return same;
}

class Tester {
   public:
    void test(uint64_t number) {
        number_ = number;
        std::vector<AlignedBytes> files;
        const Case c = random_case(number, files);
        const auto file = files[0].span();
        const Answers scalar = answers(file, c.batch(), Isa::scalar, "native", "f32");
        scalar.finite() ? ++finite_ : ++not_finite_;
        for (const Isa isa : available_isas()) {
            if (isa != Isa::scalar)
                compare(file, c, scalar, answers(file, c.batch(), isa, "native", "f32"), name_of(isa));
            for (const char* precision : {"f32", "bf16", "int8"})
                check_packing(file, c, isa, precision);
        }
        // oneDNN's ReLU makes a NaN zero.
        if (scalar.finite() && onednn_compiled_in() && best_isa() != Isa::scalar && best_isa() != Isa::neon)
            compare(file, c, scalar, answers(file, c.batch(), best_isa(), "onednn", "f32"), "oneDNN");
    }
    uint64_t wrong() const { return wrong_; }
    void report(uint64_t models) const {
        std::printf(
            "%llu models (%llu with finite answers, %llu not): %llu comparisons, %llu parted by a "
            "hairline, %llu needed the measured tolerance; %llu wrong\n",
            static_cast<unsigned long long>(models), static_cast<unsigned long long>(finite_),
            static_cast<unsigned long long>(not_finite_), static_cast<unsigned long long>(compared_),
            static_cast<unsigned long long>(parted_), static_cast<unsigned long long>(conditioned_),
            static_cast<unsigned long long>(wrong_));
    }

   private:
    void fail(const char* what, const char* isa, float by) {
        std::fprintf(stderr, "--first %llu --models 1: %s: %s (%g)\n",
                     static_cast<unsigned long long>(number_), isa, what, static_cast<double>(by));
        ++wrong_;
    }

    void compare(std::span<const std::byte> file, const Case& c, const Answers& scalar, const Answers& found,
                 const char* what) {
        ++compared_;
        const float limit = 1e-4F * std::max(1.0F, scalar.largest()), by = difference(scalar, found);
        if (by <= limit) return;
        if (parted_by_a_hairline(scalar, found)) {
            ++parted_;
            return;
        }
        ++conditioned_;
        const AlignedBytes moved = nudged(file);
        const Answers other = answers(moved.span(), c.batch(), Isa::scalar, "native", "f32");
        if (by > limit + 30 * difference(scalar, other) && !parted_by_a_hairline(scalar, other))
            fail(scalar.finite() == found.finite() ? "not the scalar path's answer"
                 : found.finite()                  ? "numbers where the scalar path has none"
                                                   : "no numbers where the scalar path has some",
                 what, by);
    }

    // Alone, together, and with more threads: the same bits.
    void check_packing(std::span<const std::byte> file, const Case& c, Isa isa, const char* precision) {
        ++compared_;
        const Answers together = answers(file, c.batch(), isa, "native", precision),
                      threads = answers(file, c.batch(), isa, "native", precision, 3);
        if (!same_bits(together.values, threads.values)) fail("threads change it", name_of(isa), 3);
        const auto alone = one_by_one(file, c, isa, precision);
        if (!same_bits(std::span(together.values).first(alone.size()), alone))
            fail("packing changes it", name_of(isa), 0);
    }

    uint64_t number_ = 0, wrong_ = 0, finite_ = 0, not_finite_ = 0, compared_ = 0, parted_ = 0,
             conditioned_ = 0;
};

// Of ordinary numbers alone.
int print_answers(uint64_t models) {
    uint64_t hash = 0, taken = 0;
    for (uint64_t number = 0; taken < models; ++number) {
        std::vector<AlignedBytes> files;
        const Case c = random_case(number, files);
        if (c.numbers != Numbers::ordinary) continue;
        ++taken;
        const Answers found = answers(files[0].span(), c.batch(), best_isa(), "native", "int8");
        hash = hash * 31 + hash_bytes(std::as_bytes(std::span(found.values)));
    }
    std::printf("%s, %llu models: %016llx\n", name_of(best_isa()), static_cast<unsigned long long>(models),
                static_cast<unsigned long long>(hash));
    return 0;
}

int run(int argc, char** argv) {
    uint64_t models = 200, first = 0, answers_of = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view option = argv[i];
        uint64_t* target = option == "--models"    ? &models
                           : option == "--first"   ? &first
                           : option == "--answers" ? &answers_of
                                                   : nullptr;
        if (target == nullptr) {
            std::fprintf(stderr, "usage: numbers [--models N] [--first N] [--answers N]\n");
            return 2;
        }
        *target = std::strtoull(argv[i + 1], nullptr, 10);
    }
    if (answers_of > 0) return print_answers(answers_of);
    Tester tester;
    for (uint64_t n = first; n < first + models; ++n)
        tester.test(n);
    tester.report(models);
    return tester.wrong() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace espalier::test

int main(int argc, char** argv) {
    return espalier::test::run(argc, argv);
}
