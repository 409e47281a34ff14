// Spoils header and directory of model files field by field, makes the hashes fit, and takes each file
// through all that a stranger's file goes through: nothing crashes, hangs, reads outside (in a build with the
// address sanitizer) or asks for much more memory than the file has bytes, and a file that is accepted gives
// on every instruction set the answer of the scalar path.
//
//   mutate [--files N] [--jobs J] [--first N] [--seconds S] [MODEL.esp...]     models beside the built-in
//   ones; default:
//                                                                every mutation there is, one job
//
// Beyond the single mutations, N takes random pairs of them. Files are taken in an order that is spread over
// all. Each job is a process of its own: one that dies is counted and replaced.
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/error.h"
#include "tests/harden/answers.h"
#include "tests/harden/mutations.h"
#include "tests/harden/subjects.h"
#include "tests/malloc_watch.h"
#include "tests/slow.h"

namespace espalier::test {
namespace {

constexpr double most_seconds = slow ? 8 : 1;  // of processor time, for one path through one file
constexpr size_t most_times_file = 32;         // memory, beside the file: to open it, and to run few tokens
constexpr size_t large_file = 1u << 20;
constexpr uint32_t tokens_asked = 16;

struct Tally {
    uint64_t files, accepted, refused, parted, deaths, hangs, wrong;
    double slowest;
    double opening, running;  // most memory, in file sizes
};

void add(Tally& sum, const Tally& t) {
    sum.files += t.files, sum.accepted += t.accepted, sum.refused += t.refused, sum.parted += t.parted;
    sum.wrong += t.wrong;
    sum.slowest = std::max(sum.slowest, t.slowest);
    sum.opening = std::max(sum.opening, t.opening), sum.running = std::max(sum.running, t.running);
}

// What a job shares with its parent, so that it is known where it died.
struct Shared {
    Tally tally;
    uint64_t next;
};

void limit_time(double seconds) {
    struct itimerval limit {};
    limit.it_value.tv_sec = static_cast<time_t>(seconds);
    setitimer(ITIMER_PROF, &limit, nullptr);
}

class Tester {
   public:
    explicit Tester(std::vector<Subject>& subjects) : subjects_(subjects) {
        for (const Subject& subject : subjects) {
            mutations_.push_back(mutations_of(subject.bytes.span()));
            total_ += mutations_.back().size();
        }
    }
    uint64_t total() const { return total_; }

    void test(uint64_t number, Tally& tally) {
        std::mt19937_64 random(number);
        // A prime that does not divide the total visits each once.
        const uint64_t place = number < total_ ? number * 1000003 % total_ : random() % total_;
        const auto [subject, mutation] = at(place);
        const auto file = subjects_[subject].bytes.span();
        const uint64_t end = end_of_directory(file);
        const std::vector<std::byte> sound(file.begin(), file.begin() + static_cast<ptrdiff_t>(end));
        apply(file, mutation);
        std::string what = describe(subject, mutation, sound);
        if (number >= total_) {
            const Mutation& second = mutations_[subject][random() % mutations_[subject].size()];
            what += "; " + describe(subject, second, sound);
            apply(file, second);
        }
        rehash(file);
        try_file(file, what + " (--first " + std::to_string(number) + " --files 1)", tally);
        ++tally.files;  // those that end the process are counted as that
        std::memcpy(file.data(), sound.data(), sound.size());
    }

   private:
    std::pair<size_t, Mutation> at(uint64_t place) const {
        size_t subject = 0;
        while (place >= mutations_[subject].size())
            place -= mutations_[subject++].size();
        return {subject, mutations_[subject][place]};
    }
    std::string describe(size_t subject, const Mutation& m, std::span<const std::byte> sound) const {
        char text[160];
        std::snprintf(text, sizeof(text), "%s: %u bytes at %llu: %llx, not %llx",
                      subjects_[subject].name.c_str(), m.bytes, static_cast<unsigned long long>(m.offset),
                      static_cast<unsigned long long>(m.value),
                      static_cast<unsigned long long>(number_at(sound, m.offset, m.bytes)));
        return text;
    }

    void try_file(std::span<std::byte> file, const std::string& what, Tally& tally) {
        Answers scalar, found;
        if (!answers(file, Isa::scalar, scalar, tally, what)) {
            ++tally.refused;
            return;
        }
        ++tally.accepted;
        for (const Isa isa : available_isas()) {
            if (isa == Isa::scalar) continue;
            if (!answers(file, isa, found, tally, what)) {
                wrong(what, name_of(isa), "refused, but not by scalar", tally);
            } else if (!agree(file, scalar, found, tally)) {
                char text[100];
                std::snprintf(text, sizeof(text), "differs by %g of %g",
                              static_cast<double>(difference(scalar, found)),
                              static_cast<double>(scalar.largest()));
                wrong(what, name_of(isa), text, tally);
            }
        }
    }
    static void wrong(const std::string& what, const char* isa, const char* how, Tally& tally) {
        std::fprintf(stderr, "%s: %s: %s\n", what.c_str(), isa, how);
        ++tally.wrong;
    }

    static bool agree(std::span<std::byte> file, const Answers& a, const Answers& b, Tally& tally) {
        const bool narrow = precision_of(file) != std::string_view("f32");
        const float limit = (narrow ? 0.05F : 1e-4F) * std::max(1.0F, a.largest());
        if (difference(a, b) <= limit) return true;
        // 8-bit and bf16 rounding may turn a walk anywhere near a threshold.
        if (parted_by_a_hairline(a, b) || (narrow && a.leaves != b.leaves)) {
            ++tally.parted;
            return true;
        }
        return difference(a, b) <= limit + 30 * conditioned(file, a);
    }

    // How far the answer moves when every stored float32 is off by a part in a million.
    static float conditioned(std::span<std::byte> file, const Answers& scalar) {
        const AlignedBytes moved = nudged(file);
        Answers other;
        Tally ignored{};
        return answers(moved.span(), Isa::scalar, other, ignored, "") ? difference(scalar, other) : 0;
    }

    // Small files in float32, where paths can be told apart; large ones as they are stored, for the time.
    static const char* precision_of(std::span<const std::byte> file) {
        return file.size() < large_file ? "f32" : "";
    }

    // Opens, verifies, tokenizes and runs; false where one of these refuses.
    static bool answers(std::span<const std::byte> file, Isa isa, Answers& out, Tally& tally,
                        const std::string& what) {
        limit_time(most_seconds);
        const std::clock_t start = std::clock();
        malloc_watch = {};
        malloc_watch.on = true;
        const auto times_file = [&] {
            return static_cast<double>(malloc_watch.most) / static_cast<double>(file.size());
        };
        bool good = false;
        try {
            ModelOptions options;
            options.isa = name_of(isa);
            options.backend = "native";
            options.precision = precision_of(file);
            const auto model = Model::from_memory(file, options);
            tally.opening = std::max(tally.opening, times_file());
            malloc_watch.live = malloc_watch.most = 0;
            out = run(*model);
            tally.running = std::max(tally.running, times_file());
            good = true;
        } catch (const Error& error) {
            const std::string_view message = error.what();
            if (message.empty() || message.find('\n') != message.npos || error.status() == Status::internal)
                wrong(what, name_of(isa), error.what(), tally);
        }
        malloc_watch.on = false;
        if (times_file() > most_times_file) wrong(what, name_of(isa), "asks for too much memory", tally);
        const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        if (seconds > tally.slowest) tally.slowest = seconds;
        limit_time(0);
        return good;
    }

    static Answers run(const Model& model) {
        try {
            model.file().verify_payload();
        } catch (const Error&) {  // its hash is of the directory too: refused is right, and so is accepted
        }
        // By default as many tokens as there are learned positions, each of which costs the file a row.
        const ModelSpec& spec = model.spec();
        const uint64_t positions = spec.positions == Positions::learned ? spec.max_positions : 4096;
        if (Context::arena_bytes(model, {}) > (positions + 512) * model.file().bytes().size())
            throw Error(Status::internal, "a default context asks for too much memory");
        ContextOptions few;
        few.max_tokens = tokens_asked;
        few.max_sequences = 2;
        Context context(model, few);
        std::vector<int32_t> ids{0, static_cast<int32_t>(spec.vocabulary) - 1,
                                 static_cast<int32_t>(spec.vocabulary) / 2};
        ids.resize(std::min<size_t>(ids.size(), spec.max_positions));
        if (spec.tokenizer.kind != TokenizerKind::none) {
            std::vector<int32_t> from_text(tokens_asked);
            bool truncated = false;
            context.tokenize("The tree, \xc3\xa9 [SEP] 12 </s>", std::nullopt, false, from_text, {},
                             truncated);
        }
        const uint32_t offsets[] = {0, 1, static_cast<uint32_t>(ids.size())};
        return answers_of(context, {ids, {}, std::span(offsets).first(ids.size() > 1 ? 3 : 2)});
    }

    std::vector<Subject>& subjects_;
    std::vector<std::vector<Mutation>> mutations_;
    uint64_t total_ = 0;
};

struct Options {
    uint64_t files = 0, first = 0, seconds = 1u << 30;
    unsigned jobs = 1;
    std::vector<std::string> models;
};

AlignedBytes read_model(const std::string& path) {
    AlignedBytes bytes(std::filesystem::file_size(path));
    std::ifstream(path, std::ios::binary)
        .read(reinterpret_cast<char*>(bytes.span().data()),
              static_cast<std::streamsize>(bytes.span().size()));
    return bytes;
}

pid_t start_job(Tester& tester, Shared* shared, uint64_t end, std::time_t until, unsigned step) {
    std::fflush(stdout);
    const pid_t child = fork();
    if (child != 0) return child;
    for (; shared->next < end && std::time(nullptr) < until; shared->next += step)
        tester.test(shared->next, shared->tally);
    _exit(0);
}

Tally run_jobs(Tester& tester, const Options& options) {
    const uint64_t end = options.first + options.files;
    const std::time_t until = std::time(nullptr) + static_cast<std::time_t>(options.seconds);
    auto* shared = static_cast<Shared*>(mmap(nullptr, options.jobs * sizeof(Shared), PROT_READ | PROT_WRITE,
                                             MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    std::vector<pid_t> jobs(options.jobs);
    Tally sum{};
    for (unsigned j = 0; j < options.jobs; ++j) {
        shared[j] = {{}, options.first + j};
        jobs[j] = start_job(tester, shared + j, end, until, options.jobs);
    }
    for (unsigned running = options.jobs; running > 0;) {
        int status = 0;
        const pid_t ended = wait(&status);
        const auto j = static_cast<size_t>(std::find(jobs.begin(), jobs.end(), ended) - jobs.begin());
        if (j == jobs.size()) continue;
        if (status == 0) {
            --running;
            continue;
        }
        const bool hang = WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF;
        ++(hang ? sum.hangs : sum.deaths);
        std::fprintf(stderr, "%s at --first %llu --files 1\n", hang ? "more than its time" : "a crash",
                     static_cast<unsigned long long>(shared[j].next));
        shared[j].next += options.jobs;
        jobs[j] = start_job(tester, shared + j, end, until, options.jobs);
    }
    for (unsigned j = 0; j < options.jobs; ++j)
        add(sum, shared[j].tally);
    return sum;
}

bool read_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument.starts_with("--")) {
            if (i + 1 == argc) return false;
            const uint64_t value = std::strtoull(argv[++i], nullptr, 10);
            if (argument == "--files")
                options.files = value;
            else if (argument == "--first")
                options.first = value;
            else if (argument == "--seconds")
                options.seconds = value;
            else if (argument == "--jobs")
                options.jobs = static_cast<unsigned>(value);
            else
                return false;
        } else {
            options.models.push_back(argument);
        }
    }
    return options.jobs >= 1 && options.jobs <= 1024;
}

int run(int argc, char** argv) {
    Options options;
    if (!read_options(argc, argv, options)) {
        std::fprintf(stderr,
                     "usage: mutate [--files N] [--first N] [--seconds S] [--jobs J] [MODEL.esp...]\n");
        return 2;
    }
    auto all = subjects();
    for (const std::string& path : options.models)
        all.push_back({path, read_model(path)});
    Tester tester(all);
    if (options.files == 0) options.files = tester.total();
    const Tally t = run_jobs(tester, options);
    std::string isas;
    for (const Isa isa : available_isas())
        isas += std::string(" ") + name_of(isa);
    std::printf(
        "%llu files (single mutations: %llu of %zu models): %llu refused, %llu accepted and run on%s, "
        "%llu of these parted by a hairline; %llu wrong, %llu crashes, %llu hangs\n",
        static_cast<unsigned long long>(t.files + t.deaths + t.hangs),
        static_cast<unsigned long long>(tester.total()), all.size(),
        static_cast<unsigned long long>(t.refused), static_cast<unsigned long long>(t.accepted), isas.c_str(),
        static_cast<unsigned long long>(t.parted), static_cast<unsigned long long>(t.wrong),
        static_cast<unsigned long long>(t.deaths), static_cast<unsigned long long>(t.hangs));
    std::printf(
        "slowest path %.3f s; memory beside the file: %.1f of its size to open, %.1f to run %u tokens\n",
        t.slowest, t.opening, t.running, tokens_asked);
    return t.wrong + t.deaths + t.hangs == 0 && t.files > 0 ? 0 : 1;
}

}  // namespace
}  // namespace espalier::test

int main(int argc, char** argv) {
    return espalier::test::run(argc, argv);
}
