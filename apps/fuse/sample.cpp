#include "apps/fuse/sample.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace espalier {
namespace {

TokenizedTexts sentences_of(Context& context, const std::string& text, size_t most_tokens) {
    TokenizedTexts sample;
    for (size_t start = 0; start < text.size() && sample.tokens() < most_tokens;) {
        const size_t end = std::min(text.find('\n', start), text.size());
        std::string_view line = std::string_view(text).substr(start, end - start);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (!line.empty()) sample.add(context.tokenize(line, std::nullopt));
        start = end + 1;
    }
    return sample;
}

TokenizedTexts windows_of(Context& context, const std::string& text, size_t most_tokens) {
    Decoder& decoder = context.decoder();
    const Bpe& tokenizer = context.model().pieces();
    // A token is a few bytes: more text than could be used is not cut into tokens at all.
    constexpr size_t bytes_a_token = 64;
    size_t cut = std::min(text.size(), most_tokens * bytes_a_token);
    while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xc0u) == 0x80u)
        --cut;  // not within a character
    const std::string_view used = std::string_view(text).substr(0, cut);
    std::vector<int32_t> ids(used.size() + 2);
    ids.resize(tokenizer.encode(used, false, ids, decoder.tokenizer_scratch()));
    const size_t own = tokenizer.options().add_begin ? 1 : 0;
    const size_t window = std::min(decoder.window(), most_tokens);
    const std::vector<uint8_t> types(window, 0);
    TokenizedTexts sample;
    for (size_t start = own; start < ids.size() && sample.tokens() < most_tokens;) {
        const size_t size = std::min(window - own, ids.size() - start);
        // The token in front has been read: the window's begin token takes its place.
        if (own > 0) ids[start - own] = tokenizer.options().begin;
        if (size + own >= 2)
            sample.add({std::span(ids).subspan(start - own, size + own),
                        std::span(types).first(size + own),
                        false,
                        {}});
        start += size;
    }
    return sample;
}

}  // namespace

TokenizedTexts sample_of(Context& context, const std::string& text, const std::string& source,
                         size_t most_tokens) {
    const bool decoder = context.model().spec().family == Family::decoder;
    TokenizedTexts sample =
        decoder ? windows_of(context, text, most_tokens) : sentences_of(context, text, most_tokens);
    if (sample.size() == 0)
        throw Error(Status::invalid_argument, "%s: expected a text of %s, found none", source.c_str(),
                    decoder ? "two tokens or more" : "one line or more");
    return sample;
}

double Quality::perplexity() const {
    return std::exp(loss / static_cast<double>(foreseen));
}

double mean_cosine(const Quality& a, const Quality& b, size_t hidden) {
    double sum = 0;
    for (size_t start = 0; start < a.embeddings.size(); start += hidden) {
        double ab = 0, aa = 0, bb = 0;
        for (size_t i = start; i < start + hidden; ++i) {
            ab += static_cast<double>(a.embeddings[i]) * b.embeddings[i];
            aa += static_cast<double>(a.embeddings[i]) * a.embeddings[i];
            bb += static_cast<double>(b.embeddings[i]) * b.embeddings[i];
        }
        sum += aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
    }
    return sum * static_cast<double>(hidden) / static_cast<double>(a.embeddings.size());
}

void for_each_pass(const Context& context, const TokenizedTexts& sample,
                   const std::function<void(const Batch& batch)>& use) {
    if (context.model().spec().family == Family::encoder)
        return for_each_batch(context, sample, false, [&](const Batch& batch, auto) { use(batch); });
    for (size_t i = 0; i < sample.size(); ++i) {
        const std::array<uint32_t, 2> offsets{0, static_cast<uint32_t>(sample.length(i))};
        use({sample.ids(i), {}, offsets});
    }
}

void run_pass(Context& context, const Batch& batch, Quality& quality) {
    if (context.model().spec().family == Family::decoder) {
        quality.loss += context.decoder().loss(batch.ids);
        quality.foreseen += batch.tokens() - 1;
        return;
    }
    const auto vectors = context.embed(batch);
    quality.embeddings.insert(quality.embeddings.end(), vectors.begin(), vectors.end());
}

void run_blocks(Context& context, const Batch& batch) {
    if (context.model().spec().family == Family::encoder) {
        context.encode(batch);
        return;
    }
    context.decoder().clear();
    context.decoder().append(batch.ids);
}

}  // namespace espalier
