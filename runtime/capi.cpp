// The C API: handles, struct sizes, and the wall that no exception passes.
#include <cstdio>
#include <cstring>
#include <new>

#include "base/error.h"
#include "espalier/espalier.h"
#include "runtime/context.h"
#include "runtime/generate.h"
#include "runtime/memory.h"
#include "runtime/model.h"

// The model's memory resource must outlive everything allocated from it: it is declared first.
struct espalier_model {
    explicit espalier_model(const espalier_model_options& options)
        : memory(options.allocator), logger(options.logger) {}
    espalier::HookResource memory;
    espalier_logger logger;
    std::unique_ptr<espalier::Model> model;
};

struct espalier_context {
    espalier_context(const espalier::Model& model, const espalier::ContextOptions& options)
        : context(model, options) {}
    espalier::Context context;
};

namespace {

using espalier::Error;
using espalier::precision_name;
using espalier::Status;

espalier_status report(espalier_error* error, Status status, const char* message) {
    if (error != nullptr) {
        error->status = static_cast<espalier_status>(status);
        std::snprintf(error->message, sizeof(error->message), "%s", message);
    }
    return static_cast<espalier_status>(status);
}

// Runs the body of an API function; whatever it throws becomes a status and a message.
template <typename Body>
espalier_status guarded(espalier_error* error, const Body& body) noexcept {
    try {
        body();
        if (error != nullptr) {
            error->status = ESPALIER_OK;
            error->message[0] = 0;
        }
        return ESPALIER_OK;
    } catch (const Error& e) {
        return report(error, e.status(), e.what());
    } catch (const std::bad_alloc&) {
        return report(error, Status::out_of_memory, "out of memory");
    } catch (const std::exception& e) {
        return report(error, Status::internal, e.what());
    } catch (...) {
        return report(error, Status::internal, "unknown exception");
    }
}

void require(const void* pointer, const char* name) {
    if (pointer == nullptr) throw Error(Status::invalid_argument, "%s: expected a pointer, found null", name);
}

// Copies what the caller's (perhaps older, shorter) struct holds over the defaults.
template <typename Options>
Options read_options(const Options* given, void (*init)(Options*), const char* name) {
    Options options;
    init(&options);
    if (given == nullptr) return options;
    if (given->struct_size < sizeof(size_t) || given->struct_size > sizeof(Options))
        throw Error(Status::invalid_argument,
                    "%s: struct_size: expected at most %zu, found %zu (call its _init function; is the "
                    "header newer than the library?)",
                    name, sizeof(Options), given->struct_size);
    std::memcpy(&options, given, given->struct_size);
    return options;
}

// Gives the caller as much of the result as its struct holds.
template <typename Info>
void write_info(Info* target, Info value, const char* name) {
    require(target, name);
    const size_t size = target->struct_size;
    if (size < sizeof(size_t) || size > sizeof(Info))
        throw Error(Status::invalid_argument, "%s: struct_size: expected at most %zu, found %zu", name,
                    sizeof(Info), size);
    value.struct_size = size;
    std::memcpy(target, &value, size);
}

void log_line(const espalier_logger& logger, espalier_log_level level, const char* format, const char* a,
              const char* b) {
    if (logger.log == nullptr) return;
    char line[256];
    std::snprintf(line, sizeof(line), format, a, b);
    logger.log(logger.user, level, line);
}

template <typename Open>
espalier_status open_model(const espalier_model_options* given, espalier_model** model, espalier_error* error,
                           const Open& open) {
    return guarded(error, [&] {
        require(model, "model");
        const auto options = read_options(given, espalier_model_options_init, "espalier_model_options");
        auto handle = std::make_unique<espalier_model>(options);
        espalier::ModelOptions inner;
        inner.isa = options.isa != nullptr ? options.isa : "";
        inner.backend = options.backend != nullptr ? options.backend : "";
        inner.precision = options.precision != nullptr ? options.precision : "";
        inner.map = options.use_mmap != 0;
        inner.verify = options.verify != 0;
        inner.huge_pages = options.huge_pages != 0;
        if (inner.huge_pages && options.allocator.allocate != nullptr)
            throw Error(Status::invalid_argument,
                        "huge_pages: expected 0 beside an allocator of the caller's, found %d",
                        options.huge_pages);
        inner.memory = &handle->memory;
        inner.callers_memory = options.allocator.allocate != nullptr;
        handle->model = open(inner);
        log_line(options.logger, ESPALIER_LOG_INFO, "opened a model: kernels %s, dense backend %s",
                 name_of(handle->model->kernels().isa), handle->model->backend().name());
        *model = handle.release();
    });
}

espalier::ContextOptions context_options(const espalier_context_options* given) {
    const auto options = read_options(given, espalier_context_options_init, "espalier_context_options");
    espalier::ContextOptions inner;
    inner.threads = options.threads;
    inner.max_tokens = options.max_tokens;
    inner.max_sequences = options.max_sequences;
    if (options.arena != nullptr) inner.arena = {static_cast<std::byte*>(options.arena), options.arena_bytes};
    inner.cancel = options.cancel;
    return inner;
}

espalier::Batch batch_of(const espalier_batch* batch) {
    require(batch, "batch");
    require(batch->ids, "batch.ids");
    require(batch->offsets, "batch.offsets");
    espalier::Batch inner;
    inner.offsets = {batch->offsets, size_t{batch->sequences} + 1};
    const size_t tokens = batch->offsets[batch->sequences];
    inner.ids = {batch->ids, tokens};
    if (batch->types != nullptr) inner.types = {batch->types, tokens};
    return inner;
}

std::string_view text_of(const char* text, size_t bytes, const char* name) {
    if (bytes > 0) require(text, name);
    return {text != nullptr ? text : "", bytes};
}

std::optional<std::string_view> pair_of(const espalier_text& text) {
    if (text.pair == nullptr) return std::nullopt;
    return std::string_view(text.pair, text.pair_bytes);
}

espalier::Context::Tokens tokenize(espalier::Context& context, const espalier_text* text) {
    require(text, "text");
    return context.tokenize(text_of(text->text, text->bytes, "text.text"), pair_of(*text));
}

void copy(std::span<const float> values, float* target) {
    std::memcpy(target, values.data(), values.size() * sizeof(float));
}

}  // namespace

extern "C" {

const char* espalier_version(void) {
    return "0.1.0";
}

const char* espalier_status_name(espalier_status status) {
    constexpr const char* names[] = {"ok",        "invalid_argument", "io",
                                     "bad_model", "unsupported",      "out_of_memory",
                                     "cancelled", "too_long",         "internal"};
    const auto index = static_cast<size_t>(status);
    return index < std::size(names) ? names[index] : "unknown";
}

void espalier_model_options_init(espalier_model_options* options) {
    if (options == nullptr) return;
    *options = {};
    options->struct_size = sizeof(*options);
    options->use_mmap = 1;
}

espalier_status espalier_model_open(const char* path, const espalier_model_options* options,
                                    espalier_model** model, espalier_error* error) {
    return open_model(options, model, error, [&](const espalier::ModelOptions& inner) {
        require(path, "path");
        return espalier::Model::open(path, inner);
    });
}

espalier_status espalier_model_from_memory(const void* data, size_t bytes,
                                           const espalier_model_options* options, espalier_model** model,
                                           espalier_error* error) {
    return open_model(options, model, error, [&](const espalier::ModelOptions& inner) {
        require(data, "data");
        return espalier::Model::from_memory({static_cast<const std::byte*>(data), bytes}, inner);
    });
}

void espalier_model_close(espalier_model* model) {
    delete model;
}

espalier_status espalier_model_get_info(const espalier_model* model, espalier_model_info* info) {
    return guarded(nullptr, [&] {
        require(model, "model");
        const espalier::Model& m = *model->model;
        espalier_model_info value{};
        value.hidden = m.spec().hidden;
        value.blocks = static_cast<uint32_t>(m.spec().blocks.size());
        value.vocabulary = m.spec().vocabulary;
        value.max_tokens =
            m.spec().tokenizer.max_tokens > 0 ? m.spec().tokenizer.max_tokens : m.spec().max_positions;
        value.heads = static_cast<uint32_t>(m.spec().heads.size());
        value.forests = static_cast<uint32_t>(m.prepared().forests);
        for (const auto& part : m.spec().parts) {
            value.stored_neurons += part.stored_neurons();
            value.active_neurons += part.active_neurons();
        }
        value.parameters = m.parameters();
        value.file_bytes = m.file().bytes().size();
        value.prepared_bytes = m.prepared_bytes();
        value.isa = name_of(m.kernels().isa);
        value.backend = m.backend().name();
        value.precision = precision_name(m.precision());
        write_info(info, value, "espalier_model_info");
    });
}

espalier_status espalier_model_get_head(const espalier_model* model, uint32_t head,
                                        espalier_head_info* info) {
    return guarded(nullptr, [&] {
        require(model, "model");
        const auto& heads = model->model->spec().heads;
        if (head >= heads.size())
            throw Error(Status::invalid_argument, "head: expected a number below %zu, found %u", heads.size(),
                        head);
        espalier_head_info value{};
        value.name = model->model->head_name(head);
        value.outputs = heads[head].outputs;
        value.is_regression = heads[head].kind == espalier::HeadKind::regression ? 1 : 0;
        value.labels = heads[head].label_count;
        write_info(info, value, "espalier_head_info");
    });
}

const char* espalier_model_label(const espalier_model* model, uint32_t head, uint32_t label) {
    if (model == nullptr || head >= model->model->spec().heads.size()) return nullptr;
    return label < model->model->spec().heads[head].label_count ? model->model->label(head, label) : nullptr;
}

espalier_status espalier_tokenize(espalier_context* context, const espalier_text* text, uint32_t flags,
                                  int32_t* ids, uint8_t* types, size_t capacity, size_t* count,
                                  int* truncated, espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(text, "text");
        require(ids, "ids");
        require(count, "count");
        bool cut = false;
        const std::span<uint8_t> type_span =
            types != nullptr ? std::span(types, capacity) : std::span<uint8_t>();
        *count = context->context.tokenize(text_of(text->text, text->bytes, "text.text"), pair_of(*text),
                                           (flags & ESPALIER_PLAIN_SPECIAL_TOKENS) != 0, {ids, capacity},
                                           type_span, cut);
        if (truncated != nullptr) *truncated = cut ? 1 : 0;
    });
}

void espalier_context_options_init(espalier_context_options* options) {
    if (options == nullptr) return;
    *options = {};
    options->struct_size = sizeof(*options);
    options->threads = 1;
}

espalier_status espalier_context_bytes(const espalier_model* model, const espalier_context_options* options,
                                       size_t* bytes, espalier_error* error) {
    return guarded(error, [&] {
        require(model, "model");
        require(bytes, "bytes");
        *bytes = espalier::Context::arena_bytes(*model->model, context_options(options));
    });
}

espalier_status espalier_context_create(const espalier_model* model, const espalier_context_options* options,
                                        espalier_context** context, espalier_error* error) {
    return guarded(error, [&] {
        require(model, "model");
        require(context, "context");
        *context = new espalier_context(*model->model, context_options(options));
    });
}

void espalier_context_destroy(espalier_context* context) {
    delete context;
}

espalier_status espalier_encode(espalier_context* context, const espalier_batch* batch, float* hidden,
                                espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(hidden, "hidden");
        copy(context->context.encode(batch_of(batch)), hidden);
    });
}

espalier_status espalier_embed(espalier_context* context, const espalier_batch* batch, float* vectors,
                               espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(vectors, "vectors");
        copy(context->context.embed(batch_of(batch)), vectors);
    });
}

espalier_status espalier_score(espalier_context* context, const espalier_batch* batch, uint32_t head,
                               float* logits, espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(logits, "logits");
        copy(context->context.score(batch_of(batch), head), logits);
    });
}

espalier_status espalier_embed_text(espalier_context* context, const espalier_text* text, float* vector,
                                    int* truncated, espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(vector, "vector");
        const auto tokens = tokenize(context->context, text);
        copy(context->context.embed(tokens.batch()), vector);
        if (truncated != nullptr) *truncated = tokens.truncated ? 1 : 0;
    });
}

espalier_status espalier_classify_text(espalier_context* context, const espalier_text* text, uint32_t head,
                                       espalier_classification* result, float* logits,
                                       espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(result, "result");
        const auto tokens = tokenize(context->context, text);
        const auto scores = context->context.score(tokens.batch(), head);
        const espalier::Choice best = espalier::most_likely(scores);
        const espalier::HeadSpec& spec = context->context.model().spec().heads[head];
        result->label = best.index;
        result->probability = spec.kind == espalier::HeadKind::regression ? 1.0F : best.probability;
        result->name =
            best.index < spec.label_count ? context->context.model().label(head, best.index) : nullptr;
        result->truncated = tokens.truncated ? 1 : 0;
        if (logits != nullptr) copy(scores, logits);
    });
}

void espalier_generate_options_init(espalier_generate_options* options) {
    if (options == nullptr) return;
    *options = {};
    options->struct_size = sizeof(*options);
    options->top_p = 1;
}

espalier_status espalier_generate(espalier_context* context, const espalier_text* prompt,
                                  const espalier_generate_options* given, espalier_token_callback callback,
                                  void* user, espalier_generation* result, espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(prompt, "prompt");
        if (prompt->pair != nullptr)
            throw Error(Status::invalid_argument, "prompt.pair: expected null, found a text");
        const auto options = read_options(given, espalier_generate_options_init, "espalier_generate_options");
        std::pair<espalier_token_callback, void*> caller{callback, user};
        espalier::TokenSink sink;
        sink.user = &caller;
        if (callback != nullptr)
            sink.function = [](void* both, int32_t id, std::string_view text) {
                const auto& [function, data] = *static_cast<decltype(caller)*>(both);
                return function(data, id, text.data(), text.size()) == 0;
            };
        const espalier::Generation done = espalier::generate(
            context->context, text_of(prompt->text, prompt->bytes, "prompt.text"),
            {options.max_tokens, {options.temperature, options.top_k, options.top_p, options.seed}}, sink);
        if (result == nullptr) return;
        write_info(result, {0, done.prompt_tokens, done.tokens, static_cast<espalier_stop>(done.stop)},
                   "espalier_generation");
    });
}

espalier_status espalier_perplexity(espalier_context* context, const char* text, size_t bytes,
                                    espalier_perplexity_result* result, espalier_error* error) {
    return guarded(error, [&] {
        require(context, "context");
        require(result, "result");
        const espalier::Perplexity found =
            espalier::perplexity(context->context, text_of(text, bytes, "text"));
        write_info(result, {0, found.perplexity, found.tokens, found.windows, found.window},
                   "espalier_perplexity_result");
    });
}

espalier_status espalier_get_routes(const espalier_context* context, uint32_t forest,
                                    espalier_routes* routes) {
    return guarded(nullptr, [&] {
        require(context, "context");
        const espalier::Context& c = context->context;
        const auto& blocks = c.model().prepared().blocks;
        for (uint32_t b = 0; b < blocks.size(); ++b) {
            for (uint32_t p = 0; p < blocks[b].parts.size(); ++p) {
                const espalier::PreparedPart& part = blocks[b].parts[p];
                if (!part.spec->is_forest() || part.forest != forest) continue;
                espalier_routes value{};
                value.block = b;
                value.part = p;
                value.trees = part.spec->trees;
                value.leaves = static_cast<uint32_t>(part.spec->leaves_per_tree());
                value.tokens = c.tokens();
                value.leaf = c.routes(forest).leaf;
                value.margin = c.routes(forest).margin;
                return write_info(routes, value, "espalier_routes");
            }
        }
        throw Error(Status::invalid_argument, "forest: expected a number below %zu, found %u",
                    c.model().prepared().forests, forest);
    });
}

void espalier_on_layer(espalier_context* context, espalier_layer_callback callback, void* user) {
    if (context == nullptr) return;
    context->context.on_layer(callback, user);
}

}  // extern "C"
