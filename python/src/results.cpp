// What calls on texts give back.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>

#include "results.h"

namespace espalier::python {
namespace {

Classification classification(const api::Model& model, Row row, unsigned head) {
    Classification result;
    const auto best = std::max_element(row.values.begin(), row.values.end());
    result.label = static_cast<uint32_t>(best - row.values.begin());
    if (const char* name = espalier_model_label(model.get(), head, result.label)) result.name = name;
    double sum = 0;
    for (const float value : row.values)
        sum += std::exp(double{value} - double{*best});
    result.probability = head_info(model, head).is_regression != 0 ? 1 : 1 / sum;
    result.truncated = row.truncated;
    result.logits = std::move(row.values);
    return result;
}

}  // namespace

nb::object embeddings(const Inputs& inputs, const std::vector<Row>& rows, size_t hidden) {
    std::vector<float> values;
    values.reserve(rows.size() * hidden);
    for (const Row& row : rows)
        values.insert(values.end(), row.values.begin(), row.values.end());
    if (!inputs.is_list) return nb::cast(to_numpy(std::move(values), {hidden}));
    return nb::cast(to_numpy(std::move(values), {rows.size(), hidden}));
}

nb::object classifications(const Inputs& inputs, const api::Model& model, std::vector<Row> rows,
                           unsigned head) {
    if (!inputs.is_list) return nb::cast(classification(model, std::move(rows[0]), head));
    nb::list all;
    for (Row& row : rows)
        all.append(classification(model, std::move(row), head));
    return all;
}

void bind_results(nb::module_& module) {
    nb::class_<Classification>(module, "Classification", "What a head says of one text.")
        .def_ro("label", &Classification::label, "The index of the largest logit.")
        .def_ro("name", &Classification::name, "The label's name; empty where the head has none.")
        .def_ro("probability", &Classification::probability, "Its softmax; 1 for a regression.")
        .def_prop_ro(
            "logits",
            [](const Classification& c) { return to_numpy(std::vector<float>(c.logits), {c.logits.size()}); },
            nb::rv_policy::move, "All outputs of the head; one, the value, for a regression.")
        .def_ro("truncated", &Classification::truncated, "Whether the text was cut at the model's limit.")
        .def("__repr__", [](const Classification& c) {
            return "Classification(label=" + std::to_string(c.label) + ", name='" + c.name +
                   "', probability=" + std::to_string(c.probability) + ")";
        });
}

}  // namespace espalier::python
