// One model, many contexts: threads, thread counts and packing change nothing in the answers.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/context.h"
#include "tests/api/models.h"

namespace {

using namespace espalier;

std::unique_ptr<Model> open_medium(std::string_view backend) {
    size_t bytes = 0;
    const auto* data = static_cast<const std::byte*>(medium_model_bytes(&bytes));
    ModelOptions options;
    options.backend = backend;
    return Model::from_memory({data, bytes}, options);
}

std::vector<std::string_view> backends() {
    const auto isa = chosen_isa("");
    if (!onednn_compiled_in() || isa == Isa::scalar || isa == Isa::neon) return {"native"};
    return {"native", "onednn"};
}

// Sequences of 1 to 16 ids, always the same ones.
struct Sequences {
    explicit Sequences(size_t count) {
        uint32_t state = 12345;
        for (size_t s = 0; s < count; ++s) {
            const size_t length = 1 + s * 7 % 16;
            for (size_t t = 0; t < length; ++t) {
                state = state * 1664525 + 1013904223;
                ids.push_back(static_cast<int32_t>(state >> 16) % 24);
                types.push_back(state >> 30 & 1);
            }
            offsets.push_back(static_cast<uint32_t>(ids.size()));
        }
    }
    Batch batch() const { return {ids, types, offsets}; }
    size_t count() const { return offsets.size() - 1; }
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    std::vector<uint32_t> offsets{0};
};

// Sequences [first, last) as a batch of their own.
std::vector<float> embed_part(Context& context, const Sequences& all, size_t first, size_t last) {
    std::vector<uint32_t> offsets;
    for (size_t s = first; s <= last; ++s)
        offsets.push_back(all.offsets[s] - all.offsets[first]);
    const size_t start = all.offsets[first], tokens = offsets.back();
    const auto out = context.embed(
        {std::span(all.ids).subspan(start, tokens), std::span(all.types).subspan(start, tokens), offsets});
    return {out.begin(), out.end()};
}

ContextOptions large(int threads) {
    ContextOptions options;
    options.threads = threads;
    options.max_tokens = 1000;
    options.max_sequences = 100;
    return options;
}

std::vector<float> embed_singly(const Model& model, const Sequences& all) {
    Context context(model, large(1));
    std::vector<float> out;
    for (size_t s = 0; s < all.count(); ++s) {
        const auto one = embed_part(context, all, s, s + 1);
        out.insert(out.end(), one.begin(), one.end());
    }
    return out;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    float largest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        REQUIRE(std::isfinite(a[i]));
        largest = std::max(largest, std::fabs(a[i] - b[i]));
    }
    return largest;
}

// The native backend gives the same bits however tokens are shared out; oneDNN may block sums otherwise.
void check_same(std::string_view backend, const std::vector<float>& a, const std::vector<float>& b) {
    const float difference = largest_difference(a, b);
    if (backend == "native") {
        CHECK(difference == 0);
    } else {
        CHECK(difference <= 1e-5F);
    }
}

}  // namespace

TEST_CASE("a sequence's result does not depend on the batch it is packed in") {
    const Sequences all(60);
    for (const auto backend : backends()) {
        CAPTURE(std::string(backend));
        const auto model = open_medium(backend);
        const auto expected = embed_singly(*model, all);
        Context context(*model, large(1));
        for (const size_t step : {2, 7, 60}) {
            std::vector<float> found;
            for (size_t s = 0; s < all.count(); s += step) {
                const auto part = embed_part(context, all, s, std::min(s + step, all.count()));
                found.insert(found.end(), part.begin(), part.end());
            }
            check_same(backend, expected, found);
            if (backend != "native")
                MESSAGE("onednn, ", step, " a batch: ", largest_difference(expected, found));
        }
    }
}

TEST_CASE("contexts of several threads work together and agree with one alone") {
    const Sequences all(60);
    for (const auto backend : backends()) {
        CAPTURE(std::string(backend));
        const auto model = open_medium(backend);
        const auto expected = embed_singly(*model, all);
        constexpr size_t workers = 4;
        std::vector<std::vector<float>> found(workers);
        std::vector<std::thread> threads;
        for (size_t w = 0; w < workers; ++w) {
            threads.emplace_back([&, w] {
                for (int round = 0; round < 3; ++round)
                    found[w] = embed_singly(*model, all);
            });
        }
        for (std::thread& thread : threads)
            thread.join();
        for (const auto& one : found)
            CHECK(std::memcmp(one.data(), expected.data(), expected.size() * sizeof(float)) == 0);
    }
}

TEST_CASE("threads inside a context change nothing, alone or beside each other") {
    const Sequences all(60);
    for (const auto backend : backends()) {
        CAPTURE(std::string(backend));
        const auto model = open_medium(backend);
        const auto expected = embed_singly(*model, all);
        for (const int count : {2, 3, 5}) {
            Context context(*model, large(count));
            check_same(backend, expected, embed_part(context, all, 0, all.count()));
        }
        std::vector<std::vector<float>> found(2);
        std::vector<std::thread> threads;
        for (auto& result : found) {
            threads.emplace_back([&model, &all, &result] {
                Context context(*model, large(2));
                result = embed_part(context, all, 0, all.count());
            });
        }
        for (std::thread& thread : threads)
            thread.join();
        for (const auto& one : found)
            check_same(backend, expected, one);
    }
}

TEST_CASE("two contexts that take turns on one thread do not disturb each other's last results") {
    const Sequences all(10);
    const auto model = open_medium("native");
    Context first(*model, large(1)), second(*model, large(1));
    const auto kept = first.embed(all.batch());
    const std::vector<float> copy(kept.begin(), kept.end());
    embed_part(second, all, 3, 5);
    CHECK(std::memcmp(copy.data(), kept.data(), copy.size() * sizeof(float)) == 0);
}
