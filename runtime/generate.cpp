#include "runtime/generate.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace espalier {

const char* name_of(Stop stop) {
    constexpr const char* names[] = {"none", "end_token", "max_tokens", "window_full", "callback"};
    return names[static_cast<size_t>(stop)];
}

Generation generate(Context& context, std::string_view prompt, const GenerateOptions& options,
                    const TokenSink& sink) {
    Decoder& decoder = context.decoder();
    const Bpe& tokenizer = context.model().pieces();
    const size_t window = decoder.window();
    Sampler sampler(options.sampler, decoder.candidates());
    const size_t count = tokenizer.encode(prompt, false, decoder.prompt(), decoder.tokenizer_scratch());
    if (count == 0)
        throw Error(
            Status::invalid_argument,
            "prompt: expected at least one token (the model has none that begins a text), found none");
    if (count >= window)
        throw Error(Status::too_long,
                    "prompt: expected less than %zu tokens (the context's window), found %zu", window, count);

    Generation result;
    result.prompt_tokens = static_cast<uint32_t>(count);
    decoder.clear();
    std::span<const float> logits = decoder.append(decoder.prompt().first(count));
    int32_t before = decoder.prompt()[count - 1];
    Bpe::Piece piece;
    for (;;) {
        if (options.max_tokens > 0 && result.tokens == options.max_tokens) break;
        if (count + result.tokens == window) {
            result.stop = Stop::window_full;
            break;
        }
        const int32_t id = sampler.choose(logits);
        if (tokenizer.ends_text(id)) {
            result.stop = Stop::end_token;
            break;
        }
        tokenizer.decode(before, id, piece);
        ++result.tokens;
        if (sink.function != nullptr && !sink.function(sink.user, id, piece.text())) {
            result.stop = Stop::callback;
            break;
        }
        // The last token of all needs no logits behind it.
        const bool last = count + result.tokens == window || result.tokens == options.max_tokens;
        if (!last) logits = decoder.append({&id, 1});
        before = id;
    }
    return result;
}

Perplexity perplexity(Context& context, std::string_view text) {
    Decoder& decoder = context.decoder();
    const Bpe& tokenizer = context.model().pieces();
    if (decoder.window() < 2)
        throw Error(Status::too_long, "perplexity: expected a window of at least 2 tokens, found %zu",
                    decoder.window());
    std::vector<int32_t> ids(text.size() + 2);
    size_t found = tokenizer.encode(text, false, ids, decoder.tokenizer_scratch());
    const bool fits = found <= ids.size();  // a byte is a token at most, save where it is ill-formed
    ids.resize(found);
    if (!fits) tokenizer.encode(text, false, ids, decoder.tokenizer_scratch());
    const bool begins = tokenizer.options().add_begin;
    const size_t own = begins ? 1 : 0, step = decoder.window() - own, count = ids.size() - own;
    if (count + own < 2)
        throw Error(Status::invalid_argument, "text: expected tokens to foresee, found %zu", count);
    Perplexity result;
    result.window = static_cast<uint32_t>(std::min(decoder.window(), count + own));
    double loss = 0;
    for (size_t start = own; start == own || start + step <= ids.size(); start += step) {
        const size_t size = std::min(step, ids.size() - start);
        // The token in front has been read: the window's begin token takes its place.
        if (begins) ids[start - 1] = tokenizer.options().begin;
        const std::span<const int32_t> window(ids.data() + start - own, size + own);
        if (window.size() < 2) break;
        loss += decoder.loss(window);
        result.tokens += window.size() - 1;
        ++result.windows;
    }
    result.perplexity = std::exp(loss / static_cast<double>(result.tokens));
    return result;
}

}  // namespace espalier
