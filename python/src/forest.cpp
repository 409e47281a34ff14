// espalier.Forest: one feed-forward part that is trees, on the caller's arrays: NumPy's, or any that speak
// DLPack.
#include "espalier/forest.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings.h"

namespace espalier::python {
namespace {

using Weight = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Leaves = nb::ndarray<uint32_t, nb::c_contig, nb::device::cpu>;
using Optional = std::optional<Weight>;

std::string shape_text(const nb::ndarray<>& array) {
    std::string text = "[";
    for (size_t d = 0; d < array.ndim(); ++d)
        text += (d > 0 ? ", " : "") + std::to_string(array.shape(d));
    return text + "]";
}

void expect_shape(const char* name, const Weight& array, std::initializer_list<size_t> shape) {
    std::string expected = "[";
    bool equal = array.ndim() == shape.size();
    size_t d = 0;
    for (const size_t length : shape) {
        equal = equal && array.shape(d) == length;
        expected += (d++ > 0 ? ", " : "") + std::to_string(length);
    }
    if (!equal)
        refuse(std::string(name) + ": expected " + expected + "], found " + shape_text(nb::ndarray<>(array)));
}

const float* data_of(const Optional& array) {
    return array && array->size() > 0 ? array->data() : nullptr;
}

class Forest {
   public:
    Forest(const espalier_forest_options& options, const espalier_forest_weights& weights,
           std::vector<Optional> kept)
        : options_(options), kept_(std::move(kept)) {
        options_.activation = nullptr;  // the caller's
        espalier_forest* forest = nullptr;
        const nb::gil_scoped_release release;
        api::check(espalier_forest_create, &options, &weights, &forest);
        handle_.reset(forest);
    }
    uint32_t hidden() const { return options_.hidden; }
    uint32_t trees() const { return options_.trees; }
    uint32_t depth() const { return options_.depth; }
    const char* isa() const { return espalier_forest_isa(handle_.get()); }

    // x, out: [..., hidden]; leaf, margin: tokens * trees.
    void run(const Input& x, const Output& out, int threads, bool add, const std::optional<Leaves>& leaf,
             const std::optional<Output>& margin) const {
        check_rows("x", nb::ndarray<>(x), hidden());
        check_rows("out", nb::ndarray<>(out), hidden());
        espalier_forest_call call;
        espalier_forest_call_init(&call);
        call.x = x.data();
        call.y = out.data();
        call.tokens = x.size() / hidden();
        call.threads = threads;
        call.add = add ? 1 : 0;
        if (out.size() != x.size())
            refuse("out: expected the shape of x, " + shape_text(nb::ndarray<>(x)) + ", found " +
                   shape_text(nb::ndarray<>(out)));
        if (x.data() < out.data() + out.size() && out.data() < x.data() + x.size())
            refuse("out: expected other memory than x's");
        const size_t routes = call.tokens * trees();
        if ((leaf && leaf->size() != routes) || (margin && margin->size() != routes))
            refuse("routes: expected " + std::to_string(routes) + " leaves and margins");
        if (leaf) call.leaf = leaf->data();
        if (margin) call.margin = margin->data();
        const nb::gil_scoped_release release;
        api::check(espalier_forest_run, handle_.get(), &call);
    }

   private:
    static void check_rows(const char* name, const nb::ndarray<>& array, size_t hidden) {
        if (array.ndim() == 0 || array.shape(array.ndim() - 1) != hidden)
            refuse(std::string(name) + ": expected [..., " + std::to_string(hidden) + "], found " +
                   shape_text(array));
    }
    struct Destroy {
        void operator()(espalier_forest* forest) const { espalier_forest_destroy(forest); }
    };
    espalier_forest_options options_;
    std::vector<Optional> kept_;  // what the kernels read where it lies
    std::unique_ptr<espalier_forest, Destroy> handle_;
};

espalier_forest_options options_of(espalier_forest_kind kind, const std::string& activation,
                                   bool zero_goes_right, const std::optional<std::string>& isa) {
    espalier_forest_options options;
    espalier_forest_options_init(&options);
    options.kind = kind;
    options.activation = activation.c_str();
    options.zero_goes_right = zero_goes_right ? 1 : 0;
    options.isa = isa ? isa->c_str() : nullptr;
    return options;
}

// depth + 1 where count is 2^(depth + 1) - 1.
uint32_t levels_of(const char* name, size_t count) {
    uint32_t levels = 0;
    while (levels < 25 && ((size_t{1} << levels) - 1) < count)
        ++levels;
    if (((size_t{1} << levels) - 1) != count)
        refuse(std::string(name) + ": expected 2^n - 1 nodes a tree, found " + std::to_string(count));
    return levels;
}

Forest neuron(const Weight& node_weight, const Weight& down, const Optional& node_bias,
              const Optional& output_bias, const std::string& activation, bool zero_goes_right,
              const std::optional<std::string>& isa) {
    if (node_weight.ndim() != 3)
        refuse("node_weight: expected [trees, nodes, hidden], found " +
               shape_text(nb::ndarray<>(node_weight)));
    const size_t trees = node_weight.shape(0), nodes = node_weight.shape(1), hidden = node_weight.shape(2);
    auto options = options_of(ESPALIER_NEURON_FOREST, activation, zero_goes_right, isa);
    const uint32_t levels = levels_of("node_weight", nodes);
    if (levels == 0) refuse("node_weight: expected nodes, found none");
    options.hidden = static_cast<uint32_t>(hidden);
    options.trees = static_cast<uint32_t>(trees);
    options.depth = levels - 1;
    expect_shape("down", down, {trees, nodes, hidden});
    if (node_bias) expect_shape("node_bias", *node_bias, {trees, nodes});
    if (output_bias) expect_shape("output_bias", *output_bias, {hidden});
    const espalier_forest_weights weights{sizeof(weights), node_weight.data(), data_of(node_bias),  nullptr,
                                          nullptr,         down.data(),        data_of(output_bias)};
    return Forest(options, weights, {node_weight, down, node_bias, output_bias});
}

Forest leaf(const Weight& node_weight, const Weight& up, const Weight& down, const Optional& node_bias,
            const Optional& up_bias, const Optional& output_bias, const std::string& activation,
            bool zero_goes_right, const std::optional<std::string>& isa) {
    if (up.ndim() != 4)
        refuse("up: expected [trees, leaves, leaf width, hidden], found " + shape_text(nb::ndarray<>(up)));
    const size_t trees = up.shape(0), leaves = up.shape(1), width = up.shape(2), hidden = up.shape(3);
    auto options = options_of(ESPALIER_LEAF_FOREST, activation, zero_goes_right, isa);
    if (leaves == 0) refuse("up: expected 2^depth leaves a tree, found none");
    options.hidden = static_cast<uint32_t>(hidden);
    options.trees = static_cast<uint32_t>(trees);
    options.depth = levels_of("up", leaves - 1);
    options.leaf_width = static_cast<uint32_t>(width);
    expect_shape("node_weight", node_weight, {trees, leaves - 1, hidden});
    expect_shape("down", down, {trees, leaves, width, hidden});
    if (node_bias) expect_shape("node_bias", *node_bias, {trees, leaves - 1});
    if (up_bias) expect_shape("up_bias", *up_bias, {trees, leaves, width});
    if (output_bias) expect_shape("output_bias", *output_bias, {trees, leaves, hidden});
    const espalier_forest_weights weights{sizeof(weights),     node_weight.data(), data_of(node_bias),
                                          up.data(),           data_of(up_bias),   down.data(),
                                          data_of(output_bias)};
    return Forest(options, weights, {node_weight});
}

}  // namespace

void bind_forest(nb::module_& module) {
    using namespace nb::literals;
    nb::class_<Forest>(
        module, "Forest",
        "One feed-forward layer that is trees, on the caller's float32 arrays (NumPy, or whatever "
        "speaks DLPack). Read-only: any number of threads may run one at the same time. "
        "espalier.forest(x, this) runs it.")
        .def_static(
            "neuron", &neuron, "node_weight"_a.noconvert(), "down"_a.noconvert(),
            "node_bias"_a.noconvert() = nb::none(), "output_bias"_a.noconvert() = nb::none(), nb::kw_only(),
            "activation"_a = "gelu_erf", "zero_goes_right"_a = false, "isa"_a = nb::none(),
            "UltraFastBERT's trees (arXiv 2311.10770): every node of the path is a neuron.\n\n"
            "node_weight, down: [trees, 2^(depth+1) - 1, hidden], in heap order; node_bias: [trees, nodes]; "
            "output_bias: [hidden]. All are used where they lie, and kept alive: what is changed in them "
            "changes the forest.")
        .def_static(
            "leaf", &leaf, "node_weight"_a.noconvert(), "up"_a.noconvert(), "down"_a.noconvert(),
            "node_bias"_a.noconvert() = nb::none(), "up_bias"_a.noconvert() = nb::none(),
            "output_bias"_a.noconvert() = nb::none(), nb::kw_only(), "activation"_a = "gelu_erf",
            "zero_goes_right"_a = false, "isa"_a = nb::none(),
            "Fast feedforward trees (arXiv 2308.14711): a walk ends in a leaf, which is a small layer.\n\n"
            "node_weight: [trees, 2^depth - 1, hidden], in heap order; node_bias: [trees, nodes]; up, down: "
            "[trees, 2^depth, leaf width, hidden]; up_bias: [trees, leaves, leaf width]; output_bias: "
            "[trees, leaves, hidden]. node_weight is used where it lies, the others are copied.")
        .def("run", &Forest::run, "x"_a.noconvert(), "out"_a.noconvert(), nb::kw_only(), "threads"_a = 1,
             "add"_a = false, "leaf"_a.noconvert() = nb::none(), "margin"_a.noconvert() = nb::none(),
             "out = forest(x), or out += forest(x); x and out: [..., hidden], of equal shape. leaf (uint32) "
             "and margin "
             "(float32), if given, get the leaf each token reached and the smallest |test value| on its way, "
             "[tokens, trees].")
        .def_prop_ro("hidden", &Forest::hidden)
        .def_prop_ro("trees", &Forest::trees)
        .def_prop_ro("depth", &Forest::depth)
        .def_prop_ro("isa", &Forest::isa, "The kernels that run.");
}

}  // namespace espalier::python
