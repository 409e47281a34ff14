// The C API of encoders: texts to ids, ids and texts to vectors, logits and labels.
#include <cstring>

#include "runtime/api/wall.h"

namespace {

using namespace espalier::api;

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

}  // extern "C"
