// Independent sums in registers, for peak_*.cpp.
#pragma once

#include <cstdint>

namespace espalier {
namespace {

// Twelve hide a latency of up to 6 cycles at two a cycle, and leave registers for the factors. Named one by
// one, and all of them "changed" by an empty statement every round: an array would live in memory, and the
// compiler would find the closed form of a round.
inline constexpr uint64_t chains = 12;

template <class Vector, class Step>
inline void run_chains(uint64_t rounds, Vector start, const Step& step) {
    Vector a = start, b = start, c = start, d = start, e = start, f = start;
    Vector g = start, h = start, i = start, j = start, k = start, l = start;
    for (uint64_t r = 0; r < rounds; ++r) {
        a = step(a);
        b = step(b);
        c = step(c);
        d = step(d);
        e = step(e);
        f = step(f);
        g = step(g);
        h = step(h);
        i = step(i);
        j = step(j);
        k = step(k);
        l = step(l);
        asm volatile(""
                     : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i),
                       "+v"(j), "+v"(k), "+v"(l));
    }
}

}  // namespace
}  // namespace espalier
