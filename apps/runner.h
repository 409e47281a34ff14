// Runs many texts through a context in packed batches.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "runtime/context.h"

namespace espalier {

// Token sequences kept one after another.
class TokenizedTexts {
   public:
    void add(const Context::Tokens& tokens);
    size_t size() const { return ends_.size(); }
    size_t length(size_t i) const { return ends_[i] - begin(i); }
    size_t tokens() const { return ids_.size(); }
    size_t truncated() const { return truncated_; }
    std::span<const int32_t> ids(size_t i) const { return std::span(ids_).subspan(begin(i), length(i)); }
    std::span<const uint8_t> types(size_t i) const { return std::span(types_).subspan(begin(i), length(i)); }

   private:
    size_t begin(size_t i) const { return i == 0 ? 0 : ends_[i - 1]; }
    std::vector<int32_t> ids_;
    std::vector<uint8_t> types_;
    std::vector<size_t> ends_;
    size_t truncated_ = 0;
};

// Calls `use(batch, members)` on batches that fit the context, members being the texts in the batch. Texts
// come in file order, or sorted by length (longest first), which is kinder to caches.
void for_each_batch(const Context& context, const TokenizedTexts& texts, bool sorted,
                    const std::function<void(const Batch& batch, std::span<const uint32_t> members)>& use);

}  // namespace espalier
