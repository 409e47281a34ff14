// Contexts that come and go on one model while others run, calls cancelled from other threads, a process that
// forks before it runs anything: the answers are those of one thread. Run under the thread sanitizer too.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "espalier/espalier.h"
#include "tests/api/models.h"
#include "tests/slow.h"

namespace {

constexpr uint32_t sequences = 6;

struct Fixture {
    Fixture() {
        espalier_model_options options;
        espalier_model_options_init(&options);
        options.backend = "native";
        size_t bytes = 0;
        const void* data = medium_model_bytes(&bytes);
        REQUIRE(espalier_model_from_memory(data, bytes, &options, &model, nullptr) == ESPALIER_OK);
        for (uint32_t s = 0; s < sequences; ++s) {
            for (uint32_t t = 0; t < 1 + s * 7 % 16; ++t)
                ids.push_back(static_cast<int32_t>((s * 11 + t * 5) % 24));
            offsets.push_back(static_cast<uint32_t>(ids.size()));
        }
    }
    ~Fixture() { espalier_model_close(model); }

    espalier_context* context(int threads, const int* cancel = nullptr) const {
        espalier_context_options options;
        espalier_context_options_init(&options);
        options.threads = threads;
        options.max_tokens = 200;
        options.max_sequences = sequences;
        options.cancel = cancel;
        espalier_context* context = nullptr;
        return espalier_context_create(model, &options, &context, nullptr) == ESPALIER_OK ? context : nullptr;
    }
    std::vector<float> answers(espalier_context* context, espalier_status expected = ESPALIER_OK) const {
        std::vector<float> out(sequences * size_t{96});
        const espalier_batch batch{ids.data(), nullptr, offsets.data(), sequences};
        const auto status = espalier_embed(context, &batch, out.data(), nullptr);
        return status == expected ? out : std::vector<float>();
    }
    std::vector<float> alone() const {
        espalier_context* one = context(1);
        auto out = answers(one);
        espalier_context_destroy(one);
        return out;
    }

    espalier_model* model = nullptr;
    std::vector<int32_t> ids;
    std::vector<uint32_t> offsets{0};
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && !a.empty() &&
           std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

// First of all: OpenMP's threads do not outlive a fork, so a parent that has used them leaves its child none.
TEST_CASE("a process may open a model, fork, and use it in both") {
    const Fixture f;
    const pid_t child = fork();
    if (child == 0) {
        espalier_context *one = f.context(1), *two = f.context(2);
        _exit(same(f.answers(one), f.answers(two)) ? 0 : 1);
    }
    espalier_context* two = f.context(2);
    CHECK(same(f.answers(two), f.alone()));
    espalier_context_destroy(two);
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("contexts are created and destroyed on one model while others run") {
    const Fixture f;
    const auto expected = f.alone();
    std::atomic<int> wrong{0};
    std::vector<std::thread> workers;
    for (int w = 0; w < 6; ++w) {
        workers.emplace_back([&, w] {
            for (int round = 0; round < (espalier::test::slow ? 8 : 60); ++round) {
                espalier_context* context = f.context(1 + (w + round) % 3);
                for (int calls = 0; calls < 1 + round % 3; ++calls)
                    wrong += context != nullptr && same(f.answers(context), expected) ? 0 : 1;
                espalier_context_destroy(context);
            }
        });
    }
    for (std::thread& worker : workers)
        worker.join();
    CHECK(wrong == 0);
}

TEST_CASE("a call that is cancelled from another thread, at any moment, leaves a context that works") {
    const Fixture f;
    const auto expected = f.alone();
    for (const int threads : {1, 3}) {
        std::atomic<int> flag{0};
        espalier_context* context = f.context(threads, reinterpret_cast<const int*>(&flag));
        REQUIRE(context != nullptr);
        int cancelled = 0, done = 0;
        for (int round = 0; round < (espalier::test::slow ? 30 : 300); ++round) {
            flag = 0;
            std::thread canceller([&flag, round] {
                std::this_thread::sleep_for(std::chrono::microseconds(round * 7 % 500));
                flag = 1;
            });
            std::vector<float> out(sequences * size_t{96});
            const espalier_batch batch{f.ids.data(), nullptr, f.offsets.data(), sequences};
            const auto status = espalier_embed(context, &batch, out.data(), nullptr);
            canceller.join();
            CHECK((status == ESPALIER_CANCELLED || (status == ESPALIER_OK && same(out, expected))));
            ++(status == ESPALIER_OK ? done : cancelled);
        }
        flag = 1;
        CHECK(!f.answers(context, ESPALIER_CANCELLED).empty());
        flag = 0;
        CHECK(same(f.answers(context), expected));
        MESSAGE(threads, " threads: ", cancelled, " cancelled, ", done, " done");
        espalier_context_destroy(context);
    }
}
