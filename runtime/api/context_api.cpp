// The C API of contexts: their memory, and what can be watched in them.
#include "runtime/api/wall.h"

namespace {

using namespace espalier::api;
using espalier::Error;
using espalier::Status;

espalier::ContextOptions context_options(const espalier_context_options* given) {
    const auto options = read_options(given, espalier_context_options_init, "espalier_context_options");
    espalier::ContextOptions inner;
    inner.threads = options.threads;
    inner.max_tokens = options.max_tokens;
    inner.max_sequences = options.max_sequences;
    if (options.arena != nullptr) inner.arena = {static_cast<std::byte*>(options.arena), options.arena_bytes};
    inner.cancel = options.cancel;
    if (options.device != nullptr) inner.device = options.device;
    return inner;
}

}  // namespace

extern "C" {

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
