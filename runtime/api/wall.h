// What all of the C API stands behind: the handles, structs of callers that may be older than the library,
// and the wall that no exception passes.
#pragma once

#include <cstring>
#include <memory>
#include <string_view>

#include "base/error.h"
#include "espalier/espalier.h"
#include "runtime/context.h"
#include "runtime/memory.h"
#include "runtime/model.h"

// The model's memory resource must outlive everything allocated from it: it is declared first.
struct espalier_model {
    explicit espalier_model(const espalier_model_options& options)
        : memory(options.allocator), logger(options.logger) {}
    espalier::HookResource memory;
    espalier_logger logger;
    std::unique_ptr<espalier::Model> model;
};

struct espalier_context {
    espalier_context(const espalier::Model& model, const espalier::ContextOptions& options)
        : context(model, options) {}
    espalier::Context context;
};

namespace espalier::api {

// The exception that is being handled, as a status and a message. `error` may be null.
espalier_status report_exception(espalier_error* error) noexcept;

// Runs the body of an API function; whatever it throws becomes a status and a message.
template <typename Body>
espalier_status guarded(espalier_error* error, const Body& body) noexcept {
    try {
        body();
    } catch (...) {
        return report_exception(error);
    }
    if (error != nullptr) {
        error->status = ESPALIER_OK;
        error->message[0] = 0;
    }
    return ESPALIER_OK;
}

// Each throws Error(invalid_argument) that names what was wrong.
void require(const void* pointer, const char* name);
void check_struct_size(size_t found, size_t own, const char* name);
// May be null where there are no bytes.
std::string_view text_of(const char* text, size_t bytes, const char* name);

// Copies what the caller's (perhaps older, shorter) struct holds over the defaults.
template <typename Options>
Options read_options(const Options* given, void (*init)(Options*), const char* name) {
    Options options;
    init(&options);
    if (given == nullptr) return options;
    check_struct_size(given->struct_size, sizeof(Options), name);
    std::memcpy(&options, given, given->struct_size);
    return options;
}

// Gives the caller as much of the result as its struct holds.
template <typename Info>
void write_info(Info* target, Info value, const char* name) {
    require(target, name);
    const size_t size = target->struct_size;
    check_struct_size(size, sizeof(Info), name);
    value.struct_size = size;
    std::memcpy(target, &value, size);
}

}  // namespace espalier::api
