#include "runtime/api/wall.h"

#include <cstdio>
#include <new>

namespace espalier::api {
namespace {

espalier_status report(espalier_error* error, Status status, const char* message) {
    if (error != nullptr) {
        error->status = static_cast<espalier_status>(status);
        std::snprintf(error->message, sizeof(error->message), "%s", message);
    }
    return static_cast<espalier_status>(status);
}

}  // namespace

espalier_status report_exception(espalier_error* error) noexcept {
    try {
        throw;
    } catch (const Error& e) {
        return report(error, e.status(), e.what());
    } catch (const std::bad_alloc&) {
        return report(error, Status::out_of_memory, "out of memory");
    } catch (const std::exception& e) {
        return report(error, Status::internal, e.what());
    } catch (...) {
        return report(error, Status::internal, "unknown exception");
    }
}

void require(const void* pointer, const char* name) {
    if (pointer == nullptr) throw Error(Status::invalid_argument, "%s: expected a pointer, found null", name);
}

void check_struct_size(size_t found, size_t own, const char* name) {
    if (found < sizeof(size_t) || found > own)
        throw Error(Status::invalid_argument,
                    "%s: struct_size: expected at most %zu, found %zu (set by its _init function or to "
                    "sizeof; is the header newer than the library?)",
                    name, own, found);
}

std::string_view text_of(const char* text, size_t bytes, const char* name) {
    if (bytes > 0) require(text, name);
    return {text != nullptr ? text : "", bytes};
}

}  // namespace espalier::api
