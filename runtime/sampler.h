// Which token comes next: the likeliest, or one drawn by temperature from the likeliest few.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace espalier {

struct SamplerOptions {
    float temperature = 0;  // 0: the likeliest token, the first of equals
    uint32_t top_k = 0;     // of the k likeliest; 0: of all
    float top_p = 1;        // of the fewest, likeliest first, that have this probability together
    uint64_t seed = 0;      // the same seed draws the same tokens
};

class Sampler {
   public:
    struct Candidate {
        float weight;
        uint32_t id;
    };
    // Throws Error(invalid_argument) for a temperature that is negative or no number, or top_p outside
    // (0, 1]. candidates: [vocabulary], to work in.
    Sampler(const SamplerOptions& options, std::span<Candidate> candidates);

    // logits: [vocabulary].
    int32_t choose(std::span<const float> logits);

   private:
    double uniform();

    SamplerOptions options_;
    std::span<Candidate> candidates_;
    uint64_t state_;
};

}  // namespace espalier
