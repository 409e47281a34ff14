// espalier.Context: working memory of one call at a time, and all that a model can do.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "results.h"

namespace espalier::python {
namespace {

using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Types = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Offsets = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void create(Session* self, const Model& model, int threads, uint32_t max_tokens, uint32_t max_sequences) {
    const nb::gil_scoped_release release;
    new (self) Session(model.model, threads, max_tokens, max_sequences);
}

nb::object embed(Session& self, nb::object texts) {
    const Inputs inputs = read_inputs(std::move(texts), nb::none());
    const Session::Use use(self);
    std::vector<Row> rows;
    {
        const nb::gil_scoped_release release;
        rows = self.run(inputs.items, std::nullopt);
    }
    return embeddings(inputs, rows, self.model().info().hidden);
}

nb::object classify(Session& self, nb::object texts, nb::object pair,
                    const std::optional<std::string>& head) {
    const Inputs inputs = read_inputs(std::move(texts), std::move(pair));
    const unsigned number = head_number(self.model(), head);
    const Session::Use use(self);
    std::vector<Row> rows;
    {
        const nb::gil_scoped_release release;
        rows = self.run(inputs.items, number);
    }
    return classifications(inputs, self.model(), std::move(rows), number);
}

struct Tokens {
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    bool truncated = false;
};

Tokens tokenize(Session& self, nb::str text, nb::object pair, bool plain_special_tokens) {
    const Inputs inputs = read_inputs(std::move(text), std::move(pair));
    const Session::Use use(self);
    const espalier_text raw = inputs.items[0].raw();
    Tokens tokens;
    tokens.ids.resize(self.max_tokens());
    tokens.types.resize(self.max_tokens());
    size_t count = 0;
    int truncated = 0;
    {
        const nb::gil_scoped_release release;
        api::check(espalier_tokenize, self.get(), &raw,
                   plain_special_tokens ? uint32_t{ESPALIER_PLAIN_SPECIAL_TOKENS} : 0u, tokens.ids.data(),
                   tokens.types.data(), tokens.ids.size(), &count, &truncated);
    }
    tokens.ids.resize(count);
    tokens.types.resize(count);
    tokens.truncated = truncated != 0;
    return tokens;
}

// Packed sequences as the C API takes them, checked as far as the arrays themselves go.
struct Packed {
    std::vector<uint32_t> whole;  // offsets of one sequence
    espalier_batch batch;

    Packed(const Ids& ids, const std::optional<Offsets>& offsets, const std::optional<Types>& types) {
        whole = {0, static_cast<uint32_t>(ids.shape(0))};
        batch = {ids.data(), types ? types->data() : nullptr, whole.data(), 1};
        if (offsets) {
            if (offsets->shape(0) < 2 || (*offsets)(offsets->shape(0) - 1) != ids.shape(0))
                refuse("offsets: expected 0 first and the number of ids, " + std::to_string(ids.shape(0)) +
                       ", last");
            for (size_t i = 1; i < offsets->shape(0); ++i) {
                if ((*offsets)(i) < (*offsets)(i - 1)) refuse("offsets: expected them to rise");
            }
            batch.offsets = offsets->data();
            batch.sequences = static_cast<uint32_t>(offsets->shape(0) - 1);
        }
        if (types && types->shape(0) != ids.shape(0))
            refuse("types: expected " + std::to_string(ids.shape(0)) + ", found " +
                   std::to_string(types->shape(0)));
    }
};

// One of espalier_encode, _embed and _score on packed ids: [rows, columns], into `out` or a new array.
template <typename Function>
nb::object run_ids(Session& self, size_t rows, size_t columns, std::optional<Output> out,
                   const Function& call) {
    if (out && (out->shape(0) != rows || out->shape(1) != columns))
        refuse("out: expected [" + std::to_string(rows) + ", " + std::to_string(columns) + "], found [" +
               std::to_string(out->shape(0)) + ", " + std::to_string(out->shape(1)) + "]");
    const Session::Use use(self);
    std::vector<float> values(out ? 0 : rows * columns);
    {
        const nb::gil_scoped_release release;
        call(out ? out->data() : values.data());
    }
    if (out) return nb::cast(*out);
    return nb::cast(to_numpy(std::move(values), {rows, columns}));
}

nb::object encode(Session& self, Ids ids, std::optional<Offsets> offsets, std::optional<Types> types,
                  std::optional<Output> out) {
    const Packed packed(ids, offsets, types);
    return run_ids(self, ids.shape(0), self.model().info().hidden, out,
                   [&](float* hidden) { api::check(espalier_encode, self.get(), &packed.batch, hidden); });
}

nb::object embed_ids(Session& self, Ids ids, std::optional<Offsets> offsets, std::optional<Types> types) {
    const Packed packed(ids, offsets, types);
    return run_ids(self, packed.batch.sequences, self.model().info().hidden, std::nullopt,
                   [&](float* vectors) { api::check(espalier_embed, self.get(), &packed.batch, vectors); });
}

nb::object score_ids(Session& self, Ids ids, std::optional<Offsets> offsets, std::optional<Types> types,
                     const std::optional<std::string>& head) {
    const Packed packed(ids, offsets, types);
    const unsigned number = head_number(self.model(), head);
    return run_ids(
        self, packed.batch.sequences, head_info(self.model(), number).outputs, std::nullopt,
        [&](float* logits) { api::check(espalier_score, self.get(), &packed.batch, number, logits); });
}

struct Routes {
    uint32_t block, part, trees, leaves;
    size_t tokens;
    std::vector<uint32_t> leaf;
    std::vector<float> margin;
};

std::vector<Routes> routes(Session& self) {
    const Session::Use use(self);
    std::vector<Routes> all;
    for (uint32_t f = 0; f < self.model().info().forests; ++f) {
        espalier_routes r{};
        r.struct_size = sizeof(r);
        if (espalier_get_routes(self.get(), f, &r) != ESPALIER_OK)
            refuse("routes: no forest " + std::to_string(f));
        const size_t count = r.tokens * r.trees;
        all.push_back({r.block,
                       r.part,
                       r.trees,
                       r.leaves,
                       r.tokens,
                       {r.leaf, r.leaf + count},
                       {r.margin, r.margin + count}});
    }
    return all;
}

struct Generation {
    std::string bytes;
    std::vector<int32_t> ids;
    uint32_t prompt_tokens = 0;
    const char* stop = "";
};

const char* stop_name(espalier_stop stop) {
    switch (stop) {
        case ESPALIER_STOP_END_TOKEN:
            return "end_token";
        case ESPALIER_STOP_MAX_TOKENS:
            return "max_tokens";
        case ESPALIER_STOP_WINDOW_FULL:
            return "window_full";
        case ESPALIER_STOP_CALLBACK:
            return "callback";
    }
    return "";
}

// Collects what is written, and asks Python, which may raise, whether to go on.
struct Listener {
    Generation result;
    nb::object on_token;  // none: nobody listens
    std::exception_ptr raised;

    static int hear(void* user, int32_t id, const char* text, size_t bytes) {
        auto& self = *static_cast<Listener*>(user);
        self.result.ids.push_back(id);
        self.result.bytes.append(text, bytes);
        const nb::gil_scoped_acquire gil;
        try {
            if (PyErr_CheckSignals() != 0) throw nb::python_error();
            if (self.on_token.is_none()) return 0;
            const nb::object answer = self.on_token(id, nb::bytes(text, bytes));
            return answer.is(nb::handle(Py_False)) ? 1 : 0;
        } catch (...) {
            self.raised = std::current_exception();
            return 1;
        }
    }
};

Generation generate(Session& self, nb::str prompt, uint32_t max_tokens, float temperature, uint32_t top_k,
                    float top_p, uint64_t seed, nb::object on_token) {
    const Inputs inputs = read_inputs(std::move(prompt), nb::none());
    const Session::Use use(self);
    espalier_generate_options options;
    espalier_generate_options_init(&options);
    options.max_tokens = max_tokens;
    options.temperature = temperature;
    options.top_k = top_k;
    options.top_p = top_p;
    options.seed = seed;
    espalier_generation generation{};
    generation.struct_size = sizeof(generation);
    const espalier_text raw = inputs.items[0].raw();
    Listener listener;
    listener.on_token = std::move(on_token);
    {
        const nb::gil_scoped_release release;
        api::check(espalier_generate, self.get(), &raw, &options, &Listener::hear,
                   static_cast<void*>(&listener), &generation);
    }
    if (listener.raised) std::rethrow_exception(listener.raised);
    listener.result.prompt_tokens = generation.prompt_tokens;
    listener.result.stop = stop_name(generation.stop);
    return std::move(listener.result);
}

double perplexity(Session& self, nb::str text) {
    const Inputs inputs = read_inputs(std::move(text), nb::none());
    const Session::Use use(self);
    espalier_perplexity_result result{};
    result.struct_size = sizeof(result);
    const nb::gil_scoped_release release;
    api::check(espalier_perplexity, self.get(), inputs.items[0].text.data(), inputs.items[0].text.size(),
               &result);
    return result.perplexity;
}

nb::object decoded(const std::string& bytes) {
    PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace");
    if (text == nullptr) throw nb::python_error();
    return nb::steal(text);
}

void bind_values(nb::module_& module) {
    nb::class_<Tokens>(module, "Tokens", "A text's token ids, special tokens included.")
        .def_prop_ro(
            "ids", [](const Tokens& t) { return to_numpy(std::vector<int32_t>(t.ids), {t.ids.size()}); },
            nb::rv_policy::move)
        .def_prop_ro(
            "types",
            [](const Tokens& t) { return to_numpy(std::vector<uint8_t>(t.types), {t.types.size()}); },
            nb::rv_policy::move, "0, or 1 for the second text of a pair.")
        .def_ro("truncated", &Tokens::truncated);
    nb::class_<Routes>(module, "Routes", "Where the tokens of a call went in one forest.")
        .def_ro("block", &Routes::block)
        .def_ro("part", &Routes::part)
        .def_ro("trees", &Routes::trees)
        .def_ro("leaves", &Routes::leaves, "Of one tree.")
        .def_prop_ro(
            "leaf",
            [](const Routes& r) {
                return to_numpy(std::vector<uint32_t>(r.leaf), {r.tokens, r.trees});
            },
            nb::rv_policy::move, "[tokens, trees]: the leaf, or last node, that each token reached.")
        .def_prop_ro(
            "margin",
            [](const Routes& r) {
                return to_numpy(std::vector<float>(r.margin), {r.tokens, r.trees});
            },
            nb::rv_policy::move, "[tokens, trees]: the smallest |test value| of the walk.");
    nb::class_<Generation>(module, "Generation", "What a decoder wrote after a prompt.")
        .def_prop_ro(
            "text", [](const Generation& g) { return decoded(g.bytes); }, nb::sig("def text(self, /) -> str"))
        .def_ro("ids", &Generation::ids)
        .def_ro("prompt_tokens", &Generation::prompt_tokens)
        .def_ro("stop", &Generation::stop, "\"end_token\", \"max_tokens\", \"window_full\" or \"callback\".");
}

}  // namespace

void bind_context(nb::module_& module) {
    bind_values(module);
    using namespace nb::literals;
    nb::class_<Session>(
        module, "Context",
        "Working memory of one call at a time on a model: one a thread. A second call beside a "
        "running one is refused.")
        .def("__init__", &create, "model"_a, nb::kw_only(), "threads"_a = 1, "max_tokens"_a = 0,
             "max_sequences"_a = 0,
             "threads: of each call. max_tokens: of one call, all sequences together (a decoder's window); "
             "0: the "
             "model's limit for one sequence. max_sequences: of one call; 0: 64.")
        .def("embed", &embed, "texts"_a,
             nb::sig("def embed(self, texts: str | collections.abc.Iterable[str]) -> "
                     "numpy.typing.NDArray[numpy.float32]"),
             "As Model.embed.")
        .def("classify", &classify, "texts"_a, "pair"_a = nb::none(), nb::kw_only(), "head"_a = nb::none(),
             nb::sig("def classify(self, texts: str | collections.abc.Iterable[str], pair: str | "
                     "collections.abc.Iterable[str] | None = None, *, head: str | None = None) -> "
                     "Classification | "
                     "list[Classification]"),
             "As Model.classify.")
        .def("tokenize", &tokenize, "text"_a, "pair"_a = nb::none(), nb::kw_only(),
             "plain_special_tokens"_a = false,
             nb::sig("def tokenize(self, text: str, pair: str | None = None, *, plain_special_tokens: bool = "
                     "False) "
                     "-> Tokens"),
             "The ids of a text or pair. plain_special_tokens: \"[SEP]\" in a text is five characters.")
        .def("encode", &encode, "ids"_a, "offsets"_a = nb::none(), "types"_a = nb::none(), nb::kw_only(),
             "out"_a = nb::none(),
             "Last hidden states, float32 [tokens, hidden], of sequences that are packed end to end: "
             "sequence s is "
             "ids[offsets[s]:offsets[s + 1]]; without offsets there is one. Arrays of int32, uint32 and "
             "uint8 are "
             "read where they lie; `out`, if given, is written and returned.")
        .def("embed_ids", &embed_ids, "ids"_a, "offsets"_a = nb::none(), "types"_a = nb::none(),
             "Pooled vectors [sequences, hidden] of packed ids, as encode takes them.")
        .def("score_ids", &score_ids, "ids"_a, "offsets"_a = nb::none(), "types"_a = nb::none(),
             nb::kw_only(), "head"_a = nb::none(),
             "A head's outputs [sequences, outputs] of packed ids, as encode takes them.")
        .def(
            "routes", &routes,
            "Where the tokens of the last call went, forest by forest. Calls on several texts leave the last "
            "packed batch's.")
        .def("generate", &generate, "prompt"_a, nb::kw_only(), "max_tokens"_a = 0, "temperature"_a = 0.0F,
             "top_k"_a = 0, "top_p"_a = 1.0F, "seed"_a = 0, "on_token"_a = nb::none(),
             nb::sig(
                 "def generate(self, prompt: str, *, max_tokens: int = 0, temperature: float = 0.0, top_k: "
                 "int "
                 "= 0, top_p: float = 1.0, seed: int = 0, on_token: collections.abc.Callable[[int, bytes], "
                 "object] | None = None) -> Generation"),
             "A decoder's continuation. max_tokens: 0: until the end token, or the window is full. on_token "
             "is "
             "called with each id and its bytes, which may be part of a character; False stops.")
        .def("perplexity", &perplexity, "text"_a, nb::sig("def perplexity(self, text: str) -> float"),
             "A decoder's, over windows that do not overlap.")
        .def("cancel", &Session::cancel, "Stops the call that is running in another thread.");
}

}  // namespace espalier::python
