// The C API of single forests.
#include "espalier/forest.h"

#include "runtime/api/wall.h"
#include "runtime/forest.h"

struct espalier_forest {
    espalier_forest(const espalier_allocator& hooks, const espalier::PartSpec& spec, size_t hidden,
                    const espalier::ForestWeights& weights, const espalier::KernelTable& kernels)
        : memory(hooks), forest(spec, hidden, weights, kernels, &memory) {}
    espalier::HookResource memory;
    espalier::Forest forest;
};

namespace {

using namespace espalier::api;
using espalier::Activation;
using espalier::Error;
using espalier::Status;

void init_weights(espalier_forest_weights* weights) {
    *weights = {};
    weights->struct_size = sizeof(*weights);
}

Activation activation_of(const char* name) {
    if (name == nullptr) return Activation::gelu_erf;
    for (const Activation a : {Activation::none, Activation::gelu_erf, Activation::gelu_tanh,
                               Activation::relu, Activation::silu, Activation::tanh}) {
        if (std::string_view(name) == espalier::name_of(a)) return a;
    }
    throw Error(Status::invalid_argument,
                "activation: expected none, gelu_erf, gelu_tanh, relu, silu or tanh, found %s", name);
}

espalier::PartSpec part_of(const espalier_forest_options& options) {
    espalier::PartSpec part;
    if (options.kind != ESPALIER_LEAF_FOREST && options.kind != ESPALIER_NEURON_FOREST)
        throw Error(Status::invalid_argument, "kind: expected 2 (leaf) or 3 (neuron), found %d",
                    static_cast<int>(options.kind));
    part.kind = static_cast<espalier::PartKind>(options.kind);
    part.activation = activation_of(options.activation);
    part.tie =
        options.zero_goes_right != 0 ? espalier::TieRule::zero_goes_right : espalier::TieRule::zero_goes_left;
    part.trees = options.trees;
    part.depth = options.depth;
    part.leaf_width = options.leaf_width;
    return part;
}

// Scratch that lives as long as one call, where the caller has none.
class CallScratch {
   public:
    CallScratch(std::pmr::memory_resource* memory, size_t bytes)
        : memory_(memory), bytes_(bytes), data_(static_cast<std::byte*>(memory->allocate(bytes, 64))) {}
    CallScratch(const CallScratch&) = delete;
    CallScratch& operator=(const CallScratch&) = delete;
    ~CallScratch() { memory_->deallocate(data_, bytes_, 64); }
    std::byte* data() const { return data_; }

   private:
    std::pmr::memory_resource* memory_;
    size_t bytes_;
    std::byte* data_;
};

}  // namespace

extern "C" {

void espalier_forest_options_init(espalier_forest_options* options) {
    if (options == nullptr) return;
    *options = {};
    options->struct_size = sizeof(*options);
    options->kind = ESPALIER_LEAF_FOREST;
    options->trees = 1;
}

void espalier_forest_call_init(espalier_forest_call* call) {
    if (call == nullptr) return;
    *call = {};
    call->struct_size = sizeof(*call);
    call->threads = 1;
}

espalier_status espalier_forest_create(const espalier_forest_options* options,
                                       const espalier_forest_weights* weights, espalier_forest** forest,
                                       espalier_error* error) {
    return guarded(error, [&] {
        require(options, "options");
        require(weights, "weights");
        require(forest, "forest");
        const auto o = read_options(options, espalier_forest_options_init, "espalier_forest_options");
        const auto w = read_options(weights, init_weights, "espalier_forest_weights");
        const espalier::PartSpec part = part_of(o);
        const auto isa = espalier::chosen_isa(o.isa != nullptr ? o.isa : "");
        *forest = new espalier_forest(o.allocator, part, o.hidden,
                                      {w.node_weight, w.node_bias, w.up, w.up_bias, w.down, w.output_bias},
                                      espalier::kernel_table(isa));
    });
}

void espalier_forest_destroy(espalier_forest* forest) {
    delete forest;
}

const char* espalier_forest_isa(const espalier_forest* forest) {
    return forest != nullptr ? forest->forest.isa() : nullptr;
}

espalier_status espalier_forest_scratch_bytes(const espalier_forest* forest, size_t tokens, int threads,
                                              size_t* bytes, espalier_error* error) {
    return guarded(error, [&] {
        require(forest, "forest");
        require(bytes, "bytes");
        *bytes = forest->forest.scratch_bytes(tokens, threads);
    });
}

espalier_status espalier_forest_run(const espalier_forest* forest, const espalier_forest_call* call,
                                    espalier_error* error) {
    return guarded(error, [&] {
        require(forest, "forest");
        require(call, "call");
        const auto c = read_options(call, espalier_forest_call_init, "espalier_forest_call");
        const size_t bytes = forest->forest.scratch_bytes(c.tokens, c.threads);
        if (c.tokens == 0) return;
        require(c.x, "call.x");
        require(c.y, "call.y");
        espalier::ForestCall inner;
        inner.x = c.x;
        inner.tokens = c.tokens;
        inner.y = c.y;
        inner.accumulate = c.add != 0;
        inner.routes = {c.leaf, c.margin};
        if (c.scratch == nullptr) {
            const CallScratch scratch(forest->forest.memory(), bytes);
            inner.scratch = scratch.data();
            return forest->forest.run(inner, c.threads);
        }
        if (c.scratch_bytes < bytes || reinterpret_cast<uintptr_t>(c.scratch) % 64 != 0)
            throw Error(Status::invalid_argument,
                        "call.scratch: expected %zu bytes at a multiple of 64, found %zu at %p", bytes,
                        c.scratch_bytes, c.scratch);
        inner.scratch = static_cast<std::byte*>(c.scratch);
        forest->forest.run(inner, c.threads);
    });
}

}  // extern "C"
