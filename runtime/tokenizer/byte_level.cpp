// The byte-level half of Bpe: words, bytes as the first symbols.
#include "base/error.h"
#include "runtime/tokenizer/bpe.h"

namespace espalier {

void Bpe::open_byte_level() {
    for (unsigned byte = 0; byte < 256; ++byte) {
        const char character = static_cast<char>(byte);
        bytes_[byte] = vocabulary_->find(std::string_view(&character, 1));
        if (bytes_[byte] < 0)
            throw Error(Status::bad_model,
                        "vocabulary: expected a token for every byte, found none for 0x%02X", byte);
    }
}

void Bpe::encode_words(std::string_view text, BpeScratch& scratch, IdSink& sink) const {
    if (text.empty()) return;
    std::string prefixed;
    if (options_.prefix_space && text.front() != ' ') {
        prefixed.append(" ").append(text);
        text = prefixed;
    }
    while (!text.empty()) {
        std::string_view part = text.substr(0, options_.single_digits ? first_digit_part(text) : text.size());
        text.remove_prefix(part.size());
        while (!part.empty()) {
            const std::string_view word = part.substr(0, first_word(part, options_.words));
            part.remove_prefix(word.size());
            encode_word(word, scratch, sink);
        }
    }
}

void Bpe::encode_word(std::string_view word, BpeScratch& scratch, IdSink& sink) const {
    if (options_.whole_words) {
        const int32_t id = vocabulary_->find(word);
        if (id >= 0 && !is_special(id)) {  // those a text says in full are found before words are
            sink.push(id);
            return;
        }
    }
    scratch.symbols.clear();
    for (const char byte : word)
        scratch.push(bytes_[static_cast<unsigned char>(byte)]);
    scratch.end();
    push_merged(scratch, sink);
}

}  // namespace espalier
