#include "runtime/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "runtime/tokenizer/unicode.h"

namespace espalier {
namespace {

constexpr std::string_view underline = "\xe2\x96\x81";  // U+2581
// A table at most half full has short runs; only pairs that are chosen to collide make longer ones, which
// would make opening quadratic.
constexpr size_t longest_probe = 512;

uint64_t hash_of(uint32_t left, uint32_t right) {
    uint64_t h = (uint64_t{left} << 32 | right) * 0x9e3779b97f4a7c15u;
    h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
    return h ^ (h >> 32);
}

// The byte that "<0xNN>" stands for; -1: it is no such piece.
int byte_of(std::string_view piece) {
    if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
    int value = 0;
    for (const char c : piece.substr(3, 2)) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, std::span<const BpeMerge> merges, const BpeOptions& options,
         std::pmr::memory_resource* memory, std::span<const AddedToken> added)
    : vocabulary_(&vocabulary), merges_(merges), options_(options), slots_(memory) {
    if (merges.size() > Vocabulary::max_tokens)
        throw Error(Status::bad_model, "merges: expected at most %zu, found %zu", Vocabulary::max_tokens,
                    merges.size());
    if (vocabulary.longest_token() > Piece::longest)
        throw Error(Status::bad_model, "vocabulary: expected tokens of at most %zu bytes, found one of %zu",
                    Piece::longest, vocabulary.longest_token());
    for (const int32_t id : {options.unknown, options.begin, options.end, options.pad}) {
        if (id >= 0 && static_cast<size_t>(id) >= vocabulary.size())
            throw Error(Status::bad_model, "special token: expected an id below %zu, found %d",
                        vocabulary.size(), id);
    }
    if (options.add_begin && options.begin < 0)
        throw Error(Status::bad_model, "token that begins a sequence: expected an id, found none");
    slots_.assign(std::bit_ceil(std::max<size_t>(2 * merges.size(), 16)), 0);
    for (uint32_t i = 0; i < merges.size(); ++i)
        insert(i);
    if (options.byte_level) {
        open_byte_level();
    } else {
        open_byte_fallback();
    }
    add_added(added);
    std::stable_sort(specials_.begin(), specials_.end(),
                     [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
    special_ids_ = {options.unknown, options.begin, options.end, options.pad};
    for (const Special& special : specials_) {
        begins_special_[static_cast<unsigned char>(special.text.front())] = true;
        if (special.special) special_ids_.push_back(special.id);
    }
    std::sort(special_ids_.begin(), special_ids_.end());
}

void Bpe::open_byte_fallback() {
    for (int byte = 0; byte < 256; ++byte) {
        char name[8];
        std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
        bytes_[static_cast<size_t>(byte)] = vocabulary_->find(std::string_view(name));
    }
    if (!options_.named_specials) return;
    for (const int32_t id : {options_.unknown, options_.begin, options_.end, options_.pad}) {
        if (id < 0 || vocabulary_->token(static_cast<size_t>(id)).empty()) continue;
        std::string text(options_.prefix_space ? options_.underlined_space ? underline : " " : "");
        text.append(vocabulary_->token(static_cast<size_t>(id)));
        specials_.push_back({std::move(text), id, true});
    }
}

void Bpe::add_added(std::span<const AddedToken> added) {
    for (const AddedToken& token : added) {
        if (token.id >= vocabulary_->size() || token.kind > (AddedToken::special | AddedToken::ends) ||
            vocabulary_->token(token.id).empty())
            throw Error(Status::bad_model,
                        "added token: expected an id below %zu of a token with a text, found %u",
                        vocabulary_->size(), token.id);
        specials_.push_back({std::string(vocabulary_->token(token.id)), static_cast<int32_t>(token.id),
                             (token.kind & AddedToken::special) != 0, (token.kind & AddedToken::ends) != 0});
    }
}

void Bpe::insert(uint32_t number) {
    const BpeMerge& m = merges_[number];
    const size_t size = vocabulary_->size();
    if (m.left >= size || m.right >= size || m.both >= size)
        throw Error(Status::bad_model, "merge %u: expected tokens below %zu, found %u and %u for %u", number,
                    size, m.left, m.right, m.both);
    const std::string_view left = vocabulary_->token(m.left), right = vocabulary_->token(m.right),
                           both = vocabulary_->token(m.both);
    if (both.size() != left.size() + right.size() || !both.starts_with(left) || !both.ends_with(right))
        throw Error(Status::bad_model,
                    "merge %u: expected a token that its parts %u and %u spell, found token %u (a tokenizer "
                    "of another model?)",
                    number, m.left, m.right, m.both);
    const size_t mask = slots_.size() - 1;
    size_t at = hash_of(m.left, m.right) & mask;
    for (size_t probe = 0; probe < longest_probe; ++probe, at = (at + 1) & mask) {
        if (slots_[at] == 0) {
            slots_[at] = number + 1;
            return;
        }
        const BpeMerge& other = merges_[slots_[at] - 1];
        if (other.left == m.left && other.right == m.right)
            throw Error(Status::bad_model, "merge %u: the pair %u, %u occurs twice", number, m.left, m.right);
    }
    throw Error(Status::bad_model, "merge %u and %zu others collide in the hash table", number,
                longest_probe);
}

const BpeMerge* Bpe::find(int32_t left, int32_t right) const {
    const auto l = static_cast<uint32_t>(left), r = static_cast<uint32_t>(right);
    const size_t mask = slots_.size() - 1;
    for (size_t at = hash_of(l, r) & mask; slots_[at] != 0; at = (at + 1) & mask) {
        const BpeMerge& m = merges_[slots_[at] - 1];
        if (m.left == l && m.right == r) return &m;
    }
    return nullptr;
}

// Well-formed UTF-8, with the space in front and spaces underlined as the vocabulary wants them (byte-level
// tokenizers put theirs in front of each part between added tokens).
void Bpe::normalise(std::string_view text, BpeScratch& scratch) const {
    std::pmr::vector<char>& out = scratch.text;
    out.clear();
    const auto append = [&](std::string_view bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); };
    const std::string_view space = options_.underlined_space ? underline : " ";
    if (options_.single_spaces) text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (options_.prefix_space && !options_.byte_level && !text.empty()) append(space);
    const char* end = text.data() + text.size();
    for (const char* at = text.data(); at < end;) {
        const unicode::Decoded decoded = unicode::decode_utf8(at, end);
        at += decoded.bytes;
        if (decoded.code_point == U' ') {
            const char* here = at - 1;
            const bool again = options_.single_spaces && here > text.data() && here[-1] == ' ';
            if (!again) append(space);
            continue;
        }
        char bytes[4];
        append({bytes, unicode::encode_utf8(decoded.code_point, bytes)});
    }
    // As in SentencePiece, whatever looks like a space by now.
    const std::string_view all(out.data(), out.size());
    size_t kept = out.size();
    while (options_.single_spaces && all.substr(0, kept).ends_with(space))
        kept -= space.size();
    out.resize(kept);
}

// One symbol a character; a character without a token is its bytes' tokens; where one of those is missing,
// unknown, and all unknown ones in a row are one.
void Bpe::add_symbols(std::string_view text, BpeScratch& scratch) const {
    scratch.symbols.clear();
    bool unknown = false;
    const char* end = text.data() + text.size();
    for (const char* at = text.data(); at < end;) {
        const size_t length = unicode::decode_utf8(at, end).bytes;
        const std::string_view character(at, length);
        at += length;
        const int32_t id = vocabulary_->find(character);
        const bool has_bytes = std::all_of(character.begin(), character.end(), [&](char byte) {
            return bytes_[static_cast<unsigned char>(byte)] >= 0;
        });
        if (id >= 0) {
            scratch.push(id);
        } else if (has_bytes) {
            for (const char byte : character)
                scratch.push(bytes_[static_cast<unsigned char>(byte)]);
        } else if (!unknown && options_.unknown >= 0) {
            scratch.push(options_.unknown);
        }
        unknown = id < 0 && !has_bytes;
    }
    scratch.end();
}

void Bpe::push_pair(uint32_t left, BpeScratch& scratch) const {
    const BpeScratch::Symbol& symbol = scratch.symbols[left];
    if (symbol.after == BpeScratch::none) return;
    const BpeMerge* found = find(symbol.id, scratch.symbols[symbol.after].id);
    if (found == nullptr) return;
    scratch.queue.push_back({found->rank, left, found->both});
    std::push_heap(scratch.queue.begin(), scratch.queue.end());
}

// A candidate may have lost a side since it was found; it still holds where the pair that stands there now
// makes the same token, as in the package `tokenizers`.
void Bpe::merge(BpeScratch& scratch) const {
    auto& symbols = scratch.symbols;
    auto& queue = scratch.queue;
    queue.clear();
    for (uint32_t i = 0; i < symbols.size(); ++i)
        push_pair(i, scratch);
    while (!queue.empty()) {
        std::pop_heap(queue.begin(), queue.end());
        const BpeScratch::Candidate best = queue.back();
        queue.pop_back();
        BpeScratch::Symbol& left = symbols[best.at];
        if (left.id < 0 || left.after == BpeScratch::none) continue;
        BpeScratch::Symbol& right = symbols[left.after];
        const BpeMerge* found = find(left.id, right.id);
        if (found == nullptr || found->both != best.both) continue;
        left.id = static_cast<int32_t>(best.both);
        left.after = right.after;
        right.id = -1;
        if (left.after != BpeScratch::none) symbols[left.after].before = best.at;
        if (left.before != BpeScratch::none) push_pair(left.before, scratch);
        push_pair(best.at, scratch);
    }
}

void Bpe::push_merged(BpeScratch& scratch, IdSink& sink) const {
    merge(scratch);
    for (const auto& symbol : scratch.symbols) {
        if (symbol.id >= 0) sink.push(symbol.id);
    }
}

void Bpe::encode_segment(std::string_view text, BpeScratch& scratch, IdSink& sink) const {
    if (text.empty()) return;
    add_symbols(text, scratch);
    push_merged(scratch, sink);
}

// The number of the special or added token that a text holds first, of several at one place the longest, and
// where; specials_.size(): it holds none.
size_t Bpe::find_special(std::string_view text, bool plain_special, size_t& at) const {
    for (at = 0; at < text.size(); ++at) {
        if (!begins_special_[static_cast<unsigned char>(text[at])]) continue;
        for (size_t i = 0; i < specials_.size(); ++i) {
            if (specials_[i].special && plain_special) continue;
            if (text.substr(at).starts_with(specials_[i].text)) return i;
        }
    }
    return specials_.size();
}

size_t Bpe::encode(std::string_view text, bool plain_special, std::span<int32_t> ids,
                   BpeScratch& scratch) const {
    if (text.size() > longest_text)
        throw Error(Status::invalid_argument, "text: expected at most %zu bytes, found %zu", longest_text,
                    text.size());
    IdSink sink{ids};
    if (options_.add_begin) sink.push(options_.begin);
    normalise(text, scratch);
    std::string_view left(scratch.text.data(), scratch.text.size());
    while (!left.empty()) {
        size_t at = 0;
        const size_t found = find_special(left, plain_special, at);
        if (options_.byte_level) {
            encode_words(left.substr(0, at), scratch, sink);
        } else {
            encode_segment(left.substr(0, at), scratch, sink);
        }
        if (found == specials_.size()) break;
        sink.push(specials_[found].id);
        left.remove_prefix(at + specials_[found].text.size());
    }
    return sink.count;
}

bool Bpe::is_special(int32_t id) const {
    return id >= 0 && std::binary_search(special_ids_.begin(), special_ids_.end(), id);
}

bool Bpe::ends_text(int32_t id) const {
    return id == options_.end || std::any_of(specials_.begin(), specials_.end(), [&](const Special& special) {
               return special.id == id && special.ends;
           });
}

void Bpe::decode(int32_t before, int32_t id, Piece& piece) const {
    piece.bytes = 0;
    if (id < 0 || static_cast<size_t>(id) >= vocabulary_->size() || is_special(id)) return;
    std::string_view text = vocabulary_->token(static_cast<size_t>(id));
    if (options_.byte_level) {
        piece.bytes = text.copy(piece.storage.data(), Piece::longest);
        return;
    }
    if (const int byte = byte_of(text); byte >= 0) {
        piece.storage[piece.bytes++] = static_cast<char>(byte);
        return;
    }
    const bool first =
        (options_.prefix_space || options_.single_spaces) && (before < 0 || before == options_.begin);
    const std::string_view space = options_.underlined_space ? underline : " ";
    if (first && text.starts_with(space)) text.remove_prefix(space.size());
    while (!text.empty() && piece.bytes < Piece::longest) {
        const bool is_space = options_.underlined_space && text.starts_with(underline);
        piece.storage[piece.bytes++] = is_space ? ' ' : text.front();
        text.remove_prefix(is_space ? underline.size() : 1);
    }
}

}  // namespace espalier
