// What the files of the extension module share. The module stands on the C API alone (espalier.hpp,
// forest.h).
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "espalier/espalier.hpp"

namespace espalier::python {

namespace nb = nanobind;

// An array of our own that becomes NumPy's without a copy: the array owns the memory.
template <typename Value>
using Array = nb::ndarray<nb::numpy, Value, nb::c_contig>;

template <typename Value>
Array<Value> to_numpy(std::vector<Value> values, std::initializer_list<size_t> shape) {
    auto* owned = new std::vector<Value>(std::move(values));
    nb::capsule owner(owned,
                      [](void* pointer) noexcept { delete static_cast<std::vector<Value>*>(pointer); });
    return Array<Value>(owned->data(), shape, owner);
}

[[noreturn]] inline void refuse(const std::string& message) {
    espalier_error error{ESPALIER_INVALID_ARGUMENT, {}};
    message.copy(error.message, sizeof(error.message) - 1);
    throw api::Exception(error);
}

void bind_model(nb::module_& module);
void bind_context(nb::module_& module);
void bind_forest(nb::module_& module);

}  // namespace espalier::python
