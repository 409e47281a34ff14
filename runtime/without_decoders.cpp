// In place of decoders in a build without them (ESPALIER_DECODERS=OFF): their models are refused when they
// are opened, so that nothing gets here but the one question.
#include "base/error.h"
#include "runtime/decoder.h"
#include "runtime/generate.h"

namespace espalier {
namespace {

[[noreturn]] void refuse() {
    throw Error(Status::unsupported, "decoders: none in this build");
}

}  // namespace

bool decoders_compiled_in() noexcept {
    return false;
}

KeyValueCache::KeyValueCache(Arena&, const Model& model, size_t window, int threads, bool)
    : model_(model), window_(window), threads_(threads), layers_(model.memory()) {
    refuse();
}

void KeyValueCache::attend(const PreparedBlock&, float*, size_t, float*) {
    refuse();
}

Decoder::Decoder(Arena& arena, const Model& model, size_t window, int threads, bool on_device)
    : model_(model),
      cache_(arena, model, window, threads, on_device),
      threads_(threads),
      tokenizer_scratch_(model.memory()) {}

void Decoder::attach(Encoder&, DeviceEncoder*, float*, const Observers&) {
    refuse();
}

Generation generate(Context& context, std::string_view, const GenerateOptions&, const TokenSink&) {
    context.decoder();  // says that the model is none
    refuse();
}

Perplexity perplexity(Context& context, std::string_view) {
    context.decoder();
    refuse();
}

}  // namespace espalier
