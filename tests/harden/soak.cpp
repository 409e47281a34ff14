// A long day in short: threads that create contexts, ask for answers of random texts' lengths and destroy
// them again, over several models, one of which comes and goes; some calls are cancelled from outside.
//
//   soak SECONDS [THREADS [MODEL.esp]]     8 threads; a third model beside the two built-in ones
//
// Every answer must be the one that a single thread gave before (to 1e-5 where oneDNN multiplies, to the bit
// elsewhere), and resident memory must not grow once all is warm: after a minute, or a third of a short run.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "espalier/espalier.h"
#include "tests/api/models.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t requests_a_model = 24;
constexpr uint32_t most_sequences = 4;
constexpr double most_growth = 0.02, allowance_mb = 8;  // an allocator's arenas breathe

[[noreturn]] void fail(const char* what, const char* message) {
    std::fprintf(stderr, "soak: %s: %s\n", what, message);
    std::exit(1);
}

void require(espalier_status status, const espalier_error& error, const char* what) {
    if (status != ESPALIER_OK) fail(what, error.message);
}

struct Request {
    std::vector<int32_t> ids;
    std::vector<uint32_t> offsets{0};
    std::string prompt;           // of a decoder
    std::vector<float> expected;  // embeddings
    std::string continuation;
};

struct Subject {
    const char* name = nullptr;
    espalier_model* model = nullptr;
    espalier_model_info info{};
    bool decoder = false;
    float tolerance = 0;
    std::vector<Request> requests;
};

espalier_context* context_of(const espalier_model* model, int threads, const int* cancel) {
    espalier_context_options options;
    espalier_context_options_init(&options);
    options.threads = threads;
    options.max_tokens = 400;
    options.max_sequences = most_sequences;
    options.cancel = cancel;
    espalier_context* context = nullptr;
    espalier_error error;
    require(espalier_context_create(model, &options, &context, &error), error, "a context");
    return context;
}

espalier_status embed(espalier_context* context, const Request& request, std::vector<float>& out,
                      espalier_error& error) {
    const espalier_batch batch{request.ids.data(), nullptr, request.offsets.data(),
                               static_cast<uint32_t>(request.offsets.size() - 1)};
    return espalier_embed(context, &batch, out.data(), &error);
}

espalier_status generate(espalier_context* context, const Request& request, std::string& out,
                         espalier_error& error) {
    espalier_generate_options options;
    espalier_generate_options_init(&options);
    options.max_tokens = 40;
    options.temperature = 3;
    options.seed = 7;
    const espalier_text text{request.prompt.data(), request.prompt.size(), nullptr, 0};
    const auto keep = [](void* user, int32_t id, const char*, size_t) {
        static_cast<std::string*>(user)->append(std::to_string(id) + " ");
        return 0;
    };
    out.clear();
    return espalier_generate(context, &text, &options, keep, &out, nullptr, &error);
}

void make_requests(Subject& subject, std::mt19937& random) {
    const uint32_t longest = std::min(subject.info.max_tokens, 90u);
    espalier_context* context = context_of(subject.model, 1, nullptr);
    espalier_error error;
    for (size_t r = 0; r < requests_a_model; ++r) {
        Request request;
        const uint32_t sequences = 1 + random() % most_sequences;
        for (uint32_t s = 0; s < sequences; ++s) {
            for (uint32_t t = 1 + random() % longest; t > 0; --t)
                request.ids.push_back(static_cast<int32_t>(random() % subject.info.vocabulary));
            request.offsets.push_back(static_cast<uint32_t>(request.ids.size()));
        }
        for (uint32_t letters = 1 + random() % 60; letters > 0; --letters)
            request.prompt += "abc "[random() % 4];
        request.expected.resize(sequences * size_t{subject.info.hidden});
        require(subject.decoder ? generate(context, request, request.continuation, error)
                                : embed(context, request, request.expected, error),
                error, subject.name);
        subject.requests.push_back(std::move(request));
    }
    espalier_context_destroy(context);
}

Subject open(const char* name, const char* path, const void* data, size_t bytes, const char* backend,
             bool decoder) {
    Subject subject;
    subject.name = name;
    espalier_model_options options;
    espalier_model_options_init(&options);
    options.backend = backend;
    espalier_error error;
    require(path != nullptr ? espalier_model_open(path, &options, &subject.model, &error)
                            : espalier_model_from_memory(data, bytes, &options, &subject.model, &error),
            error, name);
    subject.decoder = decoder;
    subject.info.struct_size = sizeof(subject.info);
    espalier_model_get_info(subject.model, &subject.info);
    subject.tolerance = std::strcmp(subject.info.backend, "native") == 0 ? 0 : 1e-5F;
    return subject;
}

struct Counters {
    std::atomic<uint64_t> calls{0}, contexts{0}, models{0}, cancelled{0}, wrong{0};
    std::atomic<bool> stop{false};
};

void check(const Subject& subject, const Request& request, const std::vector<float>& found,
           const std::string& continuation, Counters& counters) {
    bool same = continuation == request.continuation;
    for (size_t i = 0; i < request.expected.size() && !subject.decoder; ++i)
        same = same && std::fabs(found[i] - request.expected[i]) <= subject.tolerance;
    if (!same && counters.wrong++ < 10) std::fprintf(stderr, "soak: %s: another answer\n", subject.name);
}

// One context's life.
void use(const Subject& subject, const espalier_model* model, std::mt19937& random, Counters& counters) {
    std::atomic<int> flag{0};
    static_assert(sizeof(flag) == sizeof(int));
    espalier_context* context =
        context_of(model, 1 + static_cast<int>(random() % 3), reinterpret_cast<const int*>(&flag));
    ++counters.contexts;
    std::vector<float> out(most_sequences * size_t{subject.info.hidden});
    std::string continuation;
    for (unsigned calls = 1 + random() % 12; calls > 0 && !counters.stop; --calls) {
        const Request& request = subject.requests[random() % subject.requests.size()];
        espalier_error error;
        const bool cancels = random() % 8 == 0;
        std::thread canceller;
        if (cancels)
            canceller = std::thread([&flag, wait = random() % 2000] {
                std::this_thread::sleep_for(std::chrono::microseconds(wait));
                flag = 1;
            });
        const auto status = subject.decoder ? generate(context, request, continuation, error)
                                            : embed(context, request, out, error);
        if (cancels) canceller.join();
        flag = 0;
        ++counters.calls;
        if (status == ESPALIER_CANCELLED && cancels) {
            ++counters.cancelled;
            continue;
        }
        require(status, error, subject.name);
        check(subject, request, out, continuation, counters);
    }
    espalier_context_destroy(context);
}

void work(const std::vector<Subject>& subjects, unsigned seed, Counters& counters) {
    std::mt19937 random(seed);
    while (!counters.stop) {
        const Subject& subject = subjects[random() % subjects.size()];
        // Now and then over a model of its own.
        if (&subject == &subjects[0] && random() % 4 == 0) {
            size_t bytes = 0;
            const void* data = medium_model_bytes(&bytes);
            const Subject own = open(subject.name, nullptr, data, bytes, "native", false);
            ++counters.models;
            use(subject, own.model, random, counters);
            espalier_model_close(own.model);
        } else {
            use(subject, subject.model, random, counters);
        }
    }
}

double resident_mb() {
    unsigned long long pages = 0;
    if (FILE* file = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
        std::fclose(file);
    }
    return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

// Samples memory each second; the mean of the samples of [from, to) seconds.
struct Memory {
    std::vector<double> samples;
    double mean(size_t from, size_t to) const {
        double sum = 0;
        for (size_t i = from; i < to; ++i)
            sum += samples[i];
        return sum / static_cast<double>(to - from);
    }
};

Memory watch(size_t seconds, const Counters& counters) {
    Memory memory;
    const auto start = Clock::now();
    for (size_t s = 1; s <= seconds; ++s) {
        std::this_thread::sleep_until(start + std::chrono::seconds(s));
        memory.samples.push_back(resident_mb());
        if (s % 60 == 0)
            std::fprintf(stderr, "%4zu s: %.1f MB, %llu calls\n", s, memory.samples.back(),
                         static_cast<unsigned long long>(counters.calls));
    }
    return memory;
}

}  // namespace

int main(int argc, char** argv) {
    const size_t seconds = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0;
    const unsigned threads = argc > 2 ? static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10)) : 8;
    if (seconds < 6 || threads < 1 || threads > 256) {
        std::fprintf(stderr, "usage: soak SECONDS [THREADS [MODEL.esp]], of 6 seconds at least\n");
        return 2;
    }
    std::vector<Subject> subjects;
    size_t bytes = 0;
    const void* medium = medium_model_bytes(&bytes);
    subjects.push_back(open("medium", nullptr, medium, bytes, "native", false));
    const void* decoder = decoder_model_bytes(&bytes);
    subjects.push_back(open("decoder", nullptr, decoder, bytes, "native", true));
    if (argc > 3) subjects.push_back(open(argv[3], argv[3], nullptr, 0, nullptr, false));
    std::mt19937 random(1);
    for (Subject& subject : subjects)
        make_requests(subject, random);

    Counters counters;
    std::vector<std::thread> workers;
    for (unsigned t = 0; t < threads; ++t)
        workers.emplace_back(work, std::cref(subjects), t, std::ref(counters));
    const Memory memory = watch(seconds, counters);
    counters.stop = true;
    for (std::thread& worker : workers)
        worker.join();
    for (const Subject& subject : subjects)
        espalier_model_close(subject.model);

    const size_t warm = std::min<size_t>(60, seconds / 3), window = std::min<size_t>(60, seconds / 3);
    const double before = memory.mean(warm, warm + window), after = memory.mean(seconds - window, seconds);
    const bool flat = after <= before * (1 + most_growth) + allowance_mb;
    std::printf(
        "%zu s, %u threads, %zu models: %llu calls, %llu contexts, %llu models opened and closed, %llu "
        "calls cancelled; %llu wrong answers; resident memory %.1f MB after %zu s, %.1f MB at the end%s\n",
        seconds, threads, subjects.size(), static_cast<unsigned long long>(counters.calls),
        static_cast<unsigned long long>(counters.contexts), static_cast<unsigned long long>(counters.models),
        static_cast<unsigned long long>(counters.cancelled), static_cast<unsigned long long>(counters.wrong),
        before, warm, after, flat ? "" : ": it grew");
    return counters.wrong == 0 && counters.cancelled > 0 && flat ? 0 : 1;
}
