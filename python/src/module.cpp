#include "bindings.h"

namespace nb = nanobind;
using espalier::api::Exception;

namespace {

// An Exception of the C++ wrapper becomes espalier.Error, with the status in an attribute.
void translate(const std::exception_ptr& pointer, void* type) {
    try {
        std::rethrow_exception(pointer);
    } catch (const Exception& e) {
        nb::object error = nb::handle(static_cast<PyObject*>(type))(e.what());
        error.attr("status") = espalier_status_name(e.status());
        PyErr_SetObject(static_cast<PyObject*>(type), error.ptr());
    }
}

}  // namespace

NB_MODULE(_espalier, module) {
    module.doc() = "Transformers whose feed-forward layers are trees, on CPUs: the extension module.";
    // PyTorch keeps what is registered with it beyond the interpreter's end.
    nb::set_leak_warnings(false);
    module.attr("__version__") = espalier_version();
    nb::exception<Exception> error(module, "Error", PyExc_RuntimeError);
    error.attr("__doc__") =
        "What Espalier refuses or fails at: one line that says what, where, expected and found. `status` "
        "names "
        "the kind: \"invalid_argument\", \"io\", \"bad_model\", \"unsupported\", \"out_of_memory\", "
        "\"cancelled\", \"too_long\", \"internal\".";
    error.attr("status") = "";
    nb::register_exception_translator(translate, error.ptr());
    espalier::python::bind_model(module);
    espalier::python::bind_context(module);
    espalier::python::bind_forest(module);
}
