// A conversion that is killed at a random moment leaves the old file or the whole new one, never something
// between that `verify` would take:  kill_test [KILLS], 25 by default.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "base/error.h"
#include "model_format/reader.h"
#include "tests/command/checkpoint.h"

namespace espalier::test {
namespace {

using Clock = std::chrono::steady_clock;

// Large enough that writing takes a good part of the time.
Checkpoint checkpoint() {
    Checkpoint c = bert_checkpoint();
    constexpr uint64_t rows = 60000;
    c.config["vocab_size"] = rows;
    c.add("embeddings.word_embeddings.weight", {rows, tiny_bert::hidden});
    return c;
}

pid_t start(const std::string& source, const std::string& target) {
    const pid_t child = fork();
    if (child != 0) return child;
    if (std::freopen("/dev/null", "w", stdout) == nullptr ||
        std::freopen("/dev/null", "w", stderr) == nullptr)
        _exit(3);
    execl(ESPALIER_COMMAND, "espalier", "convert", source.c_str(), "-o", target.c_str(), nullptr);
    _exit(3);
}

int end_of(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

bool verifies(const std::string& path) {
    try {
        ModelFile::open(path.c_str()).verify_payload();
        return true;
    } catch (const Error&) {
        return false;
    }
}

struct Counts {
    unsigned before = 0, after = 0, unfinished = 0, wrong = 0;
};

// What lies there after a kill, where `old` lay before (empty: nothing did).
void judge(const std::string& target, const std::string& old, const std::string& good, Counts& counts) {
    const bool there = std::filesystem::exists(target);
    const std::string found = there ? read_file(target) : "";
    if (found == good) {
        ++counts.after;
    } else if (found == old && there == !old.empty()) {
        ++counts.before;
    } else {
        ++counts.wrong;
        std::fprintf(stderr, "kill_test: %zu bytes that are neither the old file nor the new one%s\n",
                     found.size(), there && verifies(target) ? ", and verify takes them" : "");
    }
    const std::string part = target + ".part";
    if (!std::filesystem::exists(part)) return;
    ++counts.unfinished;
    // Verified only where it is whole.
    if (verifies(part) && read_file(part) != good) {
        ++counts.wrong;
        std::fprintf(stderr, "kill_test: verify takes an unfinished file\n");
    }
}

int run(unsigned kills) {
    const TemporaryFolder folder;
    const std::string source = folder.path("bert"), target = folder.path("model.esp");
    checkpoint().write(source);
    const auto begin = Clock::now();
    if (end_of(start(source, target)) != 0) {
        std::fprintf(stderr, "kill_test: the conversion fails by itself\n");
        return 1;
    }
    const auto whole = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
    const std::string good = read_file(target);
    std::filesystem::remove(target);
    std::mt19937_64 random(std::random_device{}());
    const std::string old = "what was there before";
    Counts counts;
    for (unsigned k = 0; k < kills; ++k) {
        const bool replaces = k % 2 == 0;
        std::filesystem::remove(target);
        if (replaces) write_file(target, old);
        const pid_t child = start(source, target);
        std::this_thread::sleep_for(
            std::chrono::microseconds(random() % static_cast<uint64_t>(whole * 11 / 10 + 1)));
        kill(child, SIGKILL);
        end_of(child);
        judge(target, replaces ? old : "", good, counts);
    }
    // The next conversion takes no harm from what was left.
    if (end_of(start(source, target)) != 0 || read_file(target) != good ||
        std::filesystem::exists(target + ".part"))
        ++counts.wrong;
    std::printf(
        "%u conversions of %lld ms killed: %u times the old file was left, %u times the new one; %u "
        "unfinished ones beside it; %u wrong\n",
        kills, static_cast<long long>(whole / 1000), counts.before, counts.after, counts.unfinished,
        counts.wrong);
    return counts.wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace espalier::test

int main(int argc, char** argv) {
    return espalier::test::run(argc > 1 ? static_cast<unsigned>(std::strtoul(argv[1], nullptr, 10)) : 25);
}
