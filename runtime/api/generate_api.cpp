// The C API of decoders.
#include "runtime/api/wall.h"
#include "runtime/generate.h"

namespace {

using namespace espalier::api;
using espalier::Error;
using espalier::Status;

}  // namespace

extern "C" {

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

}  // extern "C"
