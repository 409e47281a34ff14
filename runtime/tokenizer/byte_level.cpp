// The byte-level half of Bpe: added tokens, words, bytes as the first symbols.
#include <algorithm>

#include "base/error.h"
#include "runtime/tokenizer/bpe.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {

void Bpe::open_byte_level(std::span<const AddedToken> added) {
    for (unsigned byte = 0; byte < 256; ++byte) {
        const char character = static_cast<char>(byte);
        bytes_[byte] = vocabulary_->find(std::string_view(&character, 1));
        if (bytes_[byte] < 0)
            throw Error(Status::bad_model,
                        "vocabulary: expected a token for every byte, found none for 0x%02X", byte);
    }
    for (const AddedToken& token : added) {
        if (token.id >= vocabulary_->size() || token.special > 1 || vocabulary_->token(token.id).empty())
            throw Error(Status::bad_model,
                        "added token: expected an id below %zu of a token with a text, found %u",
                        vocabulary_->size(), token.id);
        specials_.push_back(
            {std::string(vocabulary_->token(token.id)), static_cast<int32_t>(token.id), token.special != 0});
    }
    std::stable_sort(specials_.begin(), specials_.end(),
                     [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
    for (const Special& special : specials_)
        begins_special_[static_cast<unsigned char>(special.text.front())] = true;
}

// The number of the added token that a text holds first, of several at one place the longest, and where;
// specials_.size(): it holds none.
size_t Bpe::find_added(std::string_view text, bool plain_special, size_t& at) const {
    for (at = 0; at < text.size(); ++at) {
        if (!begins_special_[static_cast<unsigned char>(text[at])]) continue;
        for (size_t i = 0; i < specials_.size(); ++i) {
            if (specials_[i].special && plain_special) continue;
            if (text.substr(at).starts_with(specials_[i].text)) return i;
        }
    }
    return specials_.size();
}

void Bpe::encode_byte_level(std::string_view text, bool plain_special, BpeScratch& scratch,
                            IdSink& sink) const {
    // Well-formed UTF-8, as every text is where the reference runs.
    scratch.text.clear();
    const char* end = text.data() + text.size();
    for (const char* at = text.data(); at < end;) {
        const unicode::Decoded decoded = unicode::decode_utf8(at, end);
        at += decoded.bytes;
        char bytes[4];
        const size_t count = unicode::encode_utf8(decoded.code_point, bytes);
        scratch.text.insert(scratch.text.end(), bytes, bytes + count);
    }
    std::string_view left(scratch.text.data(), scratch.text.size());
    while (!left.empty()) {
        size_t at = 0;
        const size_t found = find_added(left, plain_special, at);
        encode_words(left.substr(0, at), scratch, sink);
        if (found == specials_.size()) return;
        sink.push(specials_[found].id);
        left.remove_prefix(at + specials_[found].text.size());
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
        if (const int32_t id = vocabulary_->find(word); id >= 0) {
            sink.push(id);
            return;
        }
    }
    scratch.symbols.clear();
    for (const char byte : word)
        scratch.push(bytes_[static_cast<unsigned char>(byte)]);
    scratch.end();
    merge(scratch);
    for (const auto& symbol : scratch.symbols) {
        if (symbol.id >= 0) sink.push(symbol.id);
    }
}

}  // namespace espalier
