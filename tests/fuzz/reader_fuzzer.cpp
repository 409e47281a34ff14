// Any bytes as a model file: refused with an Error, or a model that tokenizes and runs. The last byte of the
// input is not part of the file; if it is odd, the hashes are made right first, so that half of the inputs
// reach the checks behind them.
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "runtime/context.h"
#include "runtime/model.h"
#include "tests/format/patch.h"

namespace {

using namespace espalier;

// Working memory is the caller's choice and depends on the tokens asked for; what this model needs for a
// few must stay in proportion to its file.
constexpr uint32_t tokens_asked = 24;

void run(const Model& model) {
    ContextOptions options;
    options.max_tokens = tokens_asked;
    options.max_sequences = 2;
    if (Context::arena_bytes(model, options) > 64u << 20) return;
    Context context(model, options);
    int32_t ids[tokens_asked] = {};
    size_t count = std::min<size_t>(4, model.spec().max_positions);
    if (model.spec().tokenizer.kind == TokenizerKind::wordpiece) {
        bool truncated = false;
        uint8_t types[tokens_asked];
        count = context.tokenize("The tree, [MASK] \xc3\xa9 leafs!", "a b", false, ids, types, truncated);
    }
    const uint32_t offsets[2] = {0, static_cast<uint32_t>(count)};
    const Batch batch{{ids, count}, {}, offsets};
    context.embed(batch);
    for (uint32_t head = 0; head < model.spec().heads.size(); ++head)
        context.score(batch, head);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    // Of exactly this size, so that the address sanitizer sees a read past the end.
    AlignedBytes bytes(size - 1);
    std::memcpy(bytes.span().data(), data, size - 1);
    if (data[size - 1] % 2 == 1) test::rehash(bytes.span());
    try {
        ModelOptions options;
        options.backend = "native";
        const auto model = Model::from_memory(bytes.span(), options);
        run(*model);
    } catch (const Error& error) {
        if (std::strchr(error.what(), '\n') != nullptr || error.what()[0] == 0) std::abort();
    }
    return 0;
}
