// espalier.Model: a model file, and texts in, vectors and labels out.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "results.h"

namespace espalier::python {
namespace {

using OptionalString = std::optional<std::string>;

const char* or_null(const OptionalString& text) {
    return text ? text->c_str() : nullptr;
}

void open(Model* self, const std::filesystem::path& path, const OptionalString& isa,
          const OptionalString& backend, const OptionalString& precision, bool mmap, bool verify,
          bool huge_pages) {
    espalier_model_options options;
    espalier_model_options_init(&options);
    options.isa = or_null(isa);
    options.backend = or_null(backend);
    options.precision = or_null(precision);
    options.use_mmap = mmap ? 1 : 0;
    options.verify = verify ? 1 : 0;
    options.huge_pages = huge_pages ? 1 : 0;
    const nb::gil_scoped_release release;
    new (self) Model(std::make_shared<const api::Model>(path.string(), &options));
}

nb::dict heads(const Model& self) {
    nb::dict all;
    for (unsigned h = 0; h < self.model->info().heads; ++h) {
        const espalier_head_info info = head_info(*self.model, h);
        nb::list labels;
        for (uint32_t l = 0; l < info.labels; ++l)
            labels.append(nb::str(espalier_model_label(self.model->get(), h, l)));
        all[info.name] = labels;
    }
    return all;
}

std::vector<Row> run(Model& self, const Inputs& inputs, std::optional<unsigned> head, int threads) {
    const nb::gil_scoped_release release;
    auto session = self.pool.take(threads);
    auto rows = [&] {
        const Session::Use use(*session);
        return session->run(inputs.items, head);
    }();
    self.pool.give_back(std::move(session));
    return rows;
}

nb::object embed(Model& self, nb::object texts, int threads) {
    const Inputs inputs = read_inputs(std::move(texts), nb::none());
    return embeddings(inputs, run(self, inputs, std::nullopt, threads), self.model->info().hidden);
}

nb::object classify(Model& self, nb::object texts, nb::object pair, const OptionalString& head, int threads) {
    const Inputs inputs = read_inputs(std::move(texts), std::move(pair));
    const unsigned number = head_number(*self.model, head);
    return classifications(inputs, *self.model, run(self, inputs, number, threads), number);
}

template <typename Value>
auto info_of(Value espalier_model_info::*member) {
    return [member](const Model& self) { return self.model->info().*member; };
}

}  // namespace

void bind_model(nb::module_& module) {
    bind_results(module);
    using namespace nb::literals;
    nb::class_<Model>(module, "Model",
                      "A model file, read-only: any number of threads may use one at the same time.\n\n"
                      ">>> model = espalier.Model(\"models/minilm-trees.esp\")\n"
                      ">>> model.embed(\"a sentence\").shape\n"
                      "(384,)")
        .def(
            "__init__", &open, "path"_a, nb::kw_only(), "isa"_a = nb::none(), "backend"_a = nb::none(),
            "precision"_a = nb::none(), "mmap"_a = true, "verify"_a = false, "huge_pages"_a = false,
            "Opens a model file that `espalier convert` wrote.\n\n"
            "isa: \"scalar\", \"avx2\", \"avx512\" or \"neon\"; None: ESPALIER_ISA, else the best there is.\n"
            "backend: \"onednn\" or \"native\". precision, of the arithmetic: \"f32\", \"bf16\" or \"int8\"; "
            "None: as the weights are stored. mmap: the file is mapped, not read. verify: the whole file is "
            "held "
            "against its hash. huge_pages: weights lie in huge pages.")
        .def("embed", &embed, "texts"_a, nb::kw_only(), "threads"_a = 1,
             nb::sig("def embed(self, texts: str | collections.abc.Iterable[str], *, threads: int = 1) -> "
                     "numpy.typing.NDArray[numpy.float32]"),
             "Vectors of texts, of length 1 where the model says so: an array [hidden] of a string, [texts, "
             "hidden] "
             "of a list. Longer texts than the model's limit are cut. Safe from many threads.")
        .def("classify", &classify, "texts"_a, "pair"_a = nb::none(), nb::kw_only(), "head"_a = nb::none(),
             "threads"_a = 1,
             nb::sig("def classify(self, texts: str | collections.abc.Iterable[str], pair: str | "
                     "collections.abc.Iterable[str] | None = None, *, head: str | None = None, threads: int "
                     "= 1) -> "
                     "Classification | list[Classification]"),
             "What a head says of texts, or of pairs of texts: a Classification, or a list of them. head: "
             "its name, "
             "needed where the model has several. Safe from many threads.")
        .def_prop_ro("heads", &heads, nb::sig("def heads(self, /) -> dict[str, list[str]]"),
                     "The names of the heads, and of their labels.")
        .def_prop_ro("hidden", info_of(&espalier_model_info::hidden),
                     "Width of hidden states and embeddings.")
        .def_prop_ro("blocks", info_of(&espalier_model_info::blocks))
        .def_prop_ro("vocabulary", info_of(&espalier_model_info::vocabulary))
        .def_prop_ro("max_tokens", info_of(&espalier_model_info::max_tokens),
                     "Of one sequence, special tokens included.")
        .def_prop_ro("forests", info_of(&espalier_model_info::forests), "Tree parts in all blocks.")
        .def_prop_ro("stored_neurons", info_of(&espalier_model_info::stored_neurons),
                     "Of the feed-forward parts of all blocks.")
        .def_prop_ro("active_neurons", info_of(&espalier_model_info::active_neurons),
                     "Computed for one token.")
        .def_prop_ro("parameters", info_of(&espalier_model_info::parameters))
        .def_prop_ro("file_bytes", info_of(&espalier_model_info::file_bytes))
        .def_prop_ro("prepared_bytes", info_of(&espalier_model_info::prepared_bytes),
                     "Memory that the model holds beside the file.")
        .def_prop_ro("isa", info_of(&espalier_model_info::isa), "The kernels that run.")
        .def_prop_ro("backend", info_of(&espalier_model_info::backend))
        .def_prop_ro("precision", info_of(&espalier_model_info::precision), "Of the arithmetic.");
}

}  // namespace espalier::python
