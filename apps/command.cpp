#include "apps/command.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>

#include "base/error.h"
#include "espalier/espalier.h"

namespace espalier {

void add_common(CLI::App& command, CommonOptions& options, bool json) {
    command.add_option("--threads", options.threads, "Threads of one call")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    command
        .add_option("--isa", options.isa,
                    "Instruction set (default: ESPALIER_ISA, else the best of this machine)")
        ->check(CLI::IsMember({"scalar", "avx2", "avx512", "neon"}));
    command.add_option("--backend", options.backend, "Dense layers by oneDNN or by our own kernels")
        ->check(CLI::IsMember({"onednn", "native"}));
    command
        .add_option(
            "--device", options.device,
            cuda_compiled_in() ? "Where blocks run: cpu, cuda or cuda:N" : "cpu (this build has no other)")
        ->capture_default_str();
    command
        .add_option("--precision", options.precision,
                    "Arithmetic of projections and feed-forward parts (default: as the weights are stored)")
        ->check(CLI::IsMember({"f32", "bf16", "int8"}));
    command.add_flag("--no-mmap", options.no_mmap, "Read the file into memory instead of mapping it");
    command.add_flag("--huge-pages", options.huge_pages,
                     "Read the file into huge pages: faster where neuron trees outgrow the caches");
    if (json) command.add_flag("--json", options.json, "JSON to stdout");
}

ModelOptions model_options(const CommonOptions& options) {
    if (device_named(options.device).is_cuda && !cuda_compiled_in())
        throw Error(Status::unsupported, "--device: expected cpu (this build has no CUDA), found %s",
                    options.device.c_str());
    ModelOptions inner;
    inner.isa = options.isa;
    inner.backend = options.backend;
    inner.precision = options.precision;
    inner.map = !options.no_mmap;
    inner.huge_pages = options.huge_pages;
    return inner;
}

void require_cpu(const CommonOptions& options, const char* command) {
    if (device_named(options.device).is_cuda)
        throw Error(Status::unsupported, "--device: expected cpu, where alone %s runs, found %s", command,
                    options.device.c_str());
}

ContextOptions context_options(const CommonOptions& options) {
    ContextOptions inner;
    inner.threads = options.threads;
    inner.device = options.device;
    return inner;
}

std::unique_ptr<Model> open_model(const std::string& path, const CommonOptions& options) {
    return Model::open(path.c_str(), model_options(options));
}

void print_json(const Json& value) {
    std::printf("%s\n", json_text(value).c_str());
}

void end_as_an_error_without_memory() {
    std::set_terminate([] {
        const char* reason = "internal error";
        try {
            if (std::current_exception()) std::rethrow_exception(std::current_exception());
        } catch (const std::bad_alloc&) {
            reason = "out of memory";
        } catch (...) {  // NOLINT(bugprone-empty-catch): the reason stands
        }
        std::fprintf(stderr, "espalier: %s\n", reason);
        std::_Exit(1);
    });
}

std::string version_text() {
    return std::string("espalier ") + espalier_version();
}

}  // namespace espalier
