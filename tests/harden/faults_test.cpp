// Memory that runs out at every allocation in turn, while a model is opened, a context made, a call run and a
// checkpoint converted: a refusal each time, nothing lost, and what exists works on. Files that cannot be
// written to the end, or change while they are used.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>

#include "apps/command.h"
#include "apps/importers/import.h"
#include "base/error.h"
#include "model_format/reader.h"
#include "runtime/generate.h"
#include "tests/command/checkpoint.h"
#include "tests/harden/answers.h"
#include "tests/harden/subjects.h"
#include "tests/malloc_watch.h"
#include "tests/slow.h"
#include "tests/tiny_decoder.h"

namespace espalier::test {
namespace {

constexpr size_t most_allocations = 200000;

// Runs the body with its n-th allocation refused, for every n there is (every `step`-th). What a refusal may
// be: out of memory, or the failure of a file that could not be read for want of it; never wrong data.
// Returns how many were refused.
size_t refuse_each(size_t step, const std::function<void()>& body, const std::function<void()>& afterwards) {
    size_t refused = 0, passed = 0;
    for (size_t n = 1; n < most_allocations; n += step) {
        bool threw = false;
        malloc_watch = {};
        malloc_watch.fail_at = n;
        malloc_watch.on = true;
        try {
            body();
        } catch (const Error& error) {
            threw = true;
            malloc_watch.on = false;
            const bool fits = error.status() == Status::out_of_memory || error.status() == Status::io;
            if (!fits) FAIL("allocation ", n, ": ", std::string(error.what()));
        } catch (const std::bad_alloc&) {
            threw = true;
        }
        malloc_watch.on = false;
        const MallocWatch counted = malloc_watch;
        if (n > counted.taken) return refused;
        ++(threw ? refused : passed);
        // The refused one was not given, so was not given back. (Where it was refused and yet all went well,
        // somebody asked for less instead.)
        CHECK(counted.taken - 1 == counted.freed);
        afterwards();
    }
    FAIL("more than ", most_allocations, " allocations, of which ", passed, " did not matter");
    return refused;
}

ContextOptions small() {
    ContextOptions options;
    options.max_tokens = 16;
    options.max_sequences = 2;
    return options;
}

void run(Context& context) {
    if (context.model().spec().family == Family::decoder) {
        generate(context, "ab c", {.max_tokens = 3, .sampler = {.temperature = 1}}, {});
        return;
    }
    const int32_t ids[] = {1, 2, 3};
    const uint32_t offsets[] = {0, 1, 3};
    context.embed({ids, {}, offsets});
    if (context.model().spec().tokenizer.kind != TokenizerKind::none)
        context.embed(context.tokenize("the tree, unknownword", "leaf").batch());
}

}  // namespace

TEST_CASE("every allocation of opening a file, making a context and running it may fail") {
    const TemporaryFolder folder;
    const std::string path = folder.path("model.esp");
    for (const Subject& subject : subjects()) {
        write_file(path, std::span(reinterpret_cast<const char*>(subject.bytes.span().data()),
                                   subject.bytes.span().size()));
        for (const bool map : {true, false}) {
            INFO(subject.name, std::string(map ? ", mapped" : ", read"));
            ModelOptions options;
            options.backend = "native";
            options.map = map;
            const size_t refused = refuse_each(
                1,
                [&] {
                    const auto model = Model::open(path.c_str(), options);
                    Context context(*model, small());
                    run(context);
                },
                [] {});
            MESSAGE(subject.name, ": ", refused, " allocations refused in turn");
            CHECK(refused > 20);
        }
    }
}

TEST_CASE("a context that ran out of memory in a call gives the same answers in the next") {
    for (const Subject& subject : subjects()) {
        INFO(subject.name);
        ModelOptions options;
        options.backend = "native";
        const auto model = Model::from_memory(subject.bytes.span(), options);
        const int32_t ids[] = {1, 2, 3};
        const uint32_t offsets[] = {0, 3};
        Context whole(*model, small());
        const Answers expected = answers_of(whole, {ids, {}, offsets});
        for (size_t n = 1; n < 100; ++n) {
            Context context(*model, small());
            malloc_watch = {};
            malloc_watch.fail_at = n;
            malloc_watch.on = true;
            try {
                run(context);
            } catch (const std::exception&) {  // what it says is tested above
            }
            malloc_watch.on = false;
            const bool all = n > malloc_watch.taken;
            CHECK(difference(expected, answers_of(context, {ids, {}, offsets})) == 0);
            if (all) break;
        }
    }
}

namespace {

Checkpoint small_checkpoint() {
    Checkpoint c = bert_checkpoint();
    // A line longer than a string holds by itself, so that reading the vocabulary needs memory.
    c.vocabulary[20] = "a token of the vocabulary that is as long as a sentence";
    return c;
}

void convert(const std::string& from, const std::string& to, Precision precision) {
    const auto import = import_checkpoint(from, {});
    import->spec.name = "a name that is too long for a string to hold by itself";
    write_model(to.c_str(), import->spec, store(*import, precision));
}

}  // namespace

namespace {

// In a process of its own, which ends as the command does: whether it refused, with its `n`-th allocation
// refused. Sets `all` where there are fewer.
bool convert_without(size_t n, const std::string& from, const std::string& to, Precision precision,
                     bool& all) {
    const pid_t child = fork();
    if (child == 0) {
        end_as_an_error_without_memory();
        int status = 1;
        malloc_watch = {};
        malloc_watch.fail_at = n;
        malloc_watch.on = true;
        try {
            convert(from, to, precision);
            status = 0;
        } catch (const Error&) {
        } catch (const std::bad_alloc&) {
        }
        _exit(malloc_watch.taken < n ? 2 : status);
    }
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFEXITED(status));
    all = WEXITSTATUS(status) == 2;
    return WEXITSTATUS(status) == 1;
}

}  // namespace

TEST_CASE("every allocation of a conversion may fail: the old file stays, or the new one is whole") {
    const TemporaryFolder folder;
    const std::string source = folder.path("bert"), target = folder.path("out/model.esp");
    small_checkpoint().write(source);
    std::filesystem::create_directories(folder.path("out"));
    convert(source, target, Precision::int8);
    const std::string good = read_file(target), old = "the old file";
    write_file(target, old);
    size_t refused = 0;
    bool all = false;
    for (size_t n = 1; !all && n < most_allocations; n += slow ? 29 : 1) {
        const bool refuses = convert_without(n, source, target, Precision::int8, all);
        refused += refuses ? 1 : 0;
        const std::string found = read_file(target);
        CHECK(found == (refuses ? old : good));
        CHECK(std::distance(std::filesystem::directory_iterator(folder.path("out")), {}) == 1);
        if (!refuses) write_file(target, old);
    }
    MESSAGE(refused, " allocations refused in turn");
    CHECK(all);
    CHECK(refused > (slow ? 10 : 100));
}

TEST_CASE("a disc that is full at any byte: an error that names the file, the old file whole, no leftovers") {
    const TemporaryFolder folder;
    const std::string source = folder.path("bert"), target = folder.path("out/model.esp");
    small_checkpoint().write(source);
    std::filesystem::create_directories(folder.path("out"));
    write_file(target, std::string("the old file"));
    convert(source, folder.path("good.esp"), Precision::int8);
    const uint64_t whole = std::filesystem::file_size(folder.path("good.esp"));
    // A limit of this process's file sizes stands for the disc's end.
    std::signal(SIGXFSZ, SIG_IGN);
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    size_t refused = 0;
    for (uint64_t room = 0; room < whole; room += room < 4096 ? 511 : 4099) {
        const rlimit limit{room, before.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        std::string message;
        try {
            convert(source, target, Precision::int8);
        } catch (const Error& error) {
            message = error.status() == Status::io ? error.what() : "";
        }
        REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
        CHECK(message.find("model.esp") != std::string::npos);
        CHECK(read_file(target) == "the old file");
        CHECK(std::distance(std::filesystem::directory_iterator(folder.path("out")), {}) == 1);
        ++refused;
    }
    CHECK(refused > 10);
    convert(source, target, Precision::int8);
    CHECK(read_file(target) == read_file(folder.path("good.esp")));
}

TEST_CASE("sources that end early are refused, at every length") {
    const TemporaryFolder folder;
    const std::string source = folder.path("bert"), target = folder.path("model.esp");
    small_checkpoint().write(source);
    for (const char* name : {"config.json", "model.safetensors"}) {
        const std::string path = source + "/" + name, whole = read_file(path);
        const size_t step = whole.size() / (slow ? 20 : 150) + 1;
        for (size_t length = 0; length + 1 < whole.size(); length += step) {
            write_file(path, whole.substr(0, length));
            CHECK_THROWS_AS(convert(source, target, Precision::f32), Error);
        }
        write_file(path, whole);
    }
    CHECK(!std::filesystem::exists(target));
}

TEST_CASE("a mapped file may be replaced by renaming; one that was read may even be cut off") {
    const TemporaryFolder folder;
    const std::string path = folder.path("model.esp"), other = folder.path("other.esp");
    const AlignedBytes bytes = packed_model();
    const auto write = [](const std::string& to, std::span<const std::byte> from) {
        write_file(to, std::span(reinterpret_cast<const char*>(from.data()), from.size()));
    };
    for (const bool map : {true, false}) {
        CAPTURE(map);
        write(path, bytes.span());
        ModelOptions options;
        options.map = map;
        const auto model = Model::open(path.c_str(), options);
        Context context(*model, small());
        const int32_t ids[] = {1, 2, 3};
        const uint32_t offsets[] = {0, 3};
        const Answers expected = answers_of(context, {ids, {}, offsets});
        if (map) {
            write(other, tiny_model().span());
            std::filesystem::rename(other, path);
        } else {
            std::filesystem::resize_file(path, 100);
        }
        Context late(*model, small());
        CHECK(difference(expected, answers_of(context, {ids, {}, offsets})) == 0);
        CHECK(difference(expected, answers_of(late, {ids, {}, offsets})) == 0);
    }
}

}  // namespace espalier::test
