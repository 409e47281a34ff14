// A text as a model's own passes: an encoder's sentences, line by line, or a decoder's windows.
#pragma once

#include <functional>
#include <string>

#include "apps/runner.h"

namespace espalier {

// At most `most_tokens` tokens of the text, but whole sequences, and one at least. Encoders: lines that are
// not empty, as the model cuts them. Decoders: windows that do not overlap, each behind the begin token where
// the model has one; the last may be shorter. `source` names the text. Throws Error(invalid_argument) for a
// text without tokens to measure.
TokenizedTexts sample_of(Context& context, const std::string& text, const std::string& source,
                         size_t most_tokens);

// What a model makes of a sample.
struct Quality {
    std::vector<float> embeddings;  // an encoder's: [sequences, hidden], in batches' order
    double loss = 0;                // a decoder's: the sum of -log p of all tokens but each window's first
    uint64_t foreseen = 0;          // tokens in that sum
    double perplexity() const;
};
// The mean over sequences of the cosine of two encoders' embeddings.
double mean_cosine(const Quality& a, const Quality& b, size_t hidden);

// Calls `use` for batches that fit the context, in order: several of an encoder's sequences, one window of a
// decoder's.
void for_each_pass(const Context& context, const TokenizedTexts& sample,
                   const std::function<void(const Batch& batch)>& use);
// One pass, with what comes of it added to `quality`; and one of which nothing but the blocks is wanted.
void run_pass(Context& context, const Batch& batch, Quality& quality);
void run_blocks(Context& context, const Batch& batch);

}  // namespace espalier
