// Text to text with a decoder: its continuation, and how well it foresees a text.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/context.h"
#include "runtime/sampler.h"

namespace espalier {

enum class Stop : uint32_t { end_token = 1, max_tokens = 2, window_full = 3, callback = 4 };
const char* name_of(Stop);

struct GenerateOptions {
    uint32_t max_tokens = 0;  // 0: as many as the window holds
    SamplerOptions sampler;
};

// Called with each new token and the bytes of its text; returns whether to go on.
struct TokenSink {
    bool (*function)(void* user, int32_t id, std::string_view text) = nullptr;
    void* user = nullptr;
};

struct Generation {
    uint32_t prompt_tokens = 0, tokens = 0;  // tokens: new ones that the sink got
    Stop stop = Stop::max_tokens;
};

// The end token ends a continuation and is not part of it. Prompt and continuation fill the window at most;
// throws Error(too_long) where the prompt alone leaves no room in it.
Generation generate(Context& context, std::string_view prompt, const GenerateOptions& options,
                    const TokenSink& sink);

struct Perplexity {
    double perplexity = 0;
    uint64_t tokens = 0;  // that were foreseen
    uint64_t windows = 0;
    uint32_t window = 0;  // tokens of each, the one that begins it included
};

// Of the whole text, cut into windows that do not overlap: each the begin token (where the model has one) and
// as many tokens as fit. Only full windows count, save where there is but one. Throws
// Error(invalid_argument) for a text of less than one token.
Perplexity perplexity(Context& context, std::string_view text);

}  // namespace espalier
