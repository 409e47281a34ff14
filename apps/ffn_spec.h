// Feed-forward layers as words: parts joined by '+'.
//   dense:W       W neurons
//   leaf:K:D:L    K trees, D levels of nodes, 2^D leaves of L neurons (L = 0: an output bias only)
//   neuron:K:D    K trees of D + 1 levels, every node a neuron (UltraFastBERT's KxD)
//   gated-…       any of these with a gate: SiLU(g) * u in place of GELU(u), no biases (but a leaf's with L =
//   0);
//                 neuron trees route on the gate
//   none          no feed-forward layer
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model_format/spec.h"

namespace espalier {

// Throws Error(invalid_argument) that says which word is wrong. Parts that are not gated have GELU (erf) and
// all biases.
std::vector<PartSpec> parse_ffn(const std::string& text);
std::string ffn_text(std::span<const PartSpec> parts);

// Rows of a neuron: up and down, and its gate's.
uint64_t rows_of(const PartSpec& part);
// Multiply-adds of one token: up and down rows of active neurons, node tests.
uint64_t multiply_adds(std::span<const PartSpec> parts, uint64_t hidden);

}  // namespace espalier
