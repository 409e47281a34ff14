// Two encoders on the same texts: how far apart their answers are, and where it begins.
#pragma once

#include <string>
#include <vector>

#include "apps/describe.h"
#include "runtime/context.h"

namespace espalier {

class ModelComparison {
   public:
    // Both take the first model's token ids. Throws Error(invalid_argument | unsupported) where they cannot.
    ModelComparison(const Model& a, const Model& b, int threads);

    void add(std::string_view text, std::optional<std::string_view> pair);

    Json json() const;
    void print() const;
    // An SVG picture: error by layer, share of equal leaves by forest. `title` may hold any text.
    std::string plot(const std::string& title) const;

   private:
    // Sums over all tokens: |b - a|^2 and |a|^2.
    struct Distance {
        double difference = 0, size = 0;
        void add(const float* a, const float* b, size_t count);
        double relative() const;
    };
    struct ForestPair {
        size_t block, part, a, b, trees;
        uint64_t equal = 0, walks = 0;
        double share() const;
    };
    struct HeadPair {
        std::string name;
        uint32_t a, b;
        bool regression;
        uint64_t agree = 0;
        double largest = 0;  // difference of an output
    };
    void pair_forests();
    void pair_heads();
    void add_embedding(const Batch& batch);
    void add_heads(const Batch& batch);

    const Model &a_model_, &b_model_;
    Context a_, b_;
    bool by_layer_;
    std::vector<std::vector<float>> hidden_;  // of the first model, by layer
    std::vector<Distance> layers_;            // 0: after the embedding
    Distance last_;
    std::vector<ForestPair> forests_;
    std::vector<HeadPair> heads_;
    uint64_t texts_ = 0, tokens_ = 0;
    double cosine_sum_ = 0, least_cosine_ = 1;
};

}  // namespace espalier
