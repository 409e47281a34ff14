// What calls on texts give back.
#pragma once

#include <string>

#include "session.h"

namespace espalier::python {

struct Classification {
    uint32_t label = 0;
    std::string name;
    double probability = 0;
    bool truncated = false;
    std::vector<float> logits;
};

// An array [hidden], or [texts, hidden] of a list.
nb::object embeddings(const Inputs& inputs, const std::vector<Row>& rows, size_t hidden);
// A Classification, or a list of them.
nb::object classifications(const Inputs& inputs, const api::Model& model, std::vector<Row> rows,
                           unsigned head);

void bind_results(nb::module_& module);

}  // namespace espalier::python
