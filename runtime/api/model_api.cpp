// The C API of models: opened, asked what they are, closed.
#include <cstdio>
#include <iterator>

#include "runtime/api/wall.h"

namespace {

using namespace espalier::api;
using espalier::Error;
using espalier::Status;

void log_line(const espalier_logger& logger, espalier_log_level level, const char* format, const char* a,
              const char* b) {
    if (logger.log == nullptr) return;
    char line[256];
    std::snprintf(line, sizeof(line), format, a, b);
    logger.log(logger.user, level, line);
}

template <typename Open>
espalier_status open_model(const espalier_model_options* given, espalier_model** model, espalier_error* error,
                           const Open& open) {
    return guarded(error, [&] {
        require(model, "model");
        const auto options = read_options(given, espalier_model_options_init, "espalier_model_options");
        auto handle = std::make_unique<espalier_model>(options);
        espalier::ModelOptions inner;
        inner.isa = options.isa != nullptr ? options.isa : "";
        inner.backend = options.backend != nullptr ? options.backend : "";
        inner.precision = options.precision != nullptr ? options.precision : "";
        inner.map = options.use_mmap != 0;
        inner.verify = options.verify != 0;
        inner.huge_pages = options.huge_pages != 0;
        if (inner.huge_pages && options.allocator.allocate != nullptr)
            throw Error(Status::invalid_argument,
                        "huge_pages: expected 0 beside an allocator of the caller's, found %d",
                        options.huge_pages);
        inner.memory = &handle->memory;
        inner.callers_memory = options.allocator.allocate != nullptr;
        handle->model = open(inner);
        log_line(options.logger, ESPALIER_LOG_INFO, "opened a model: kernels %s, dense backend %s",
                 name_of(handle->model->kernels().isa), handle->model->backend().name());
        *model = handle.release();
    });
}

}  // namespace

extern "C" {

const char* espalier_version(void) {
    return "0.1.0";
}

const char* espalier_status_name(espalier_status status) {
    constexpr const char* names[] = {"ok",        "invalid_argument", "io",
                                     "bad_model", "unsupported",      "out_of_memory",
                                     "cancelled", "too_long",         "internal"};
    const auto index = static_cast<size_t>(status);
    return index < std::size(names) ? names[index] : "unknown";
}

void espalier_model_options_init(espalier_model_options* options) {
    if (options == nullptr) return;
    *options = {};
    options->struct_size = sizeof(*options);
    options->use_mmap = 1;
}

espalier_status espalier_model_open(const char* path, const espalier_model_options* options,
                                    espalier_model** model, espalier_error* error) {
    return open_model(options, model, error, [&](const espalier::ModelOptions& inner) {
        require(path, "path");
        return espalier::Model::open(path, inner);
    });
}

espalier_status espalier_model_from_memory(const void* data, size_t bytes,
                                           const espalier_model_options* options, espalier_model** model,
                                           espalier_error* error) {
    return open_model(options, model, error, [&](const espalier::ModelOptions& inner) {
        require(data, "data");
        return espalier::Model::from_memory({static_cast<const std::byte*>(data), bytes}, inner);
    });
}

void espalier_model_close(espalier_model* model) {
    delete model;
}

espalier_status espalier_model_get_info(const espalier_model* model, espalier_model_info* info) {
    return guarded(nullptr, [&] {
        require(model, "model");
        const espalier::Model& m = *model->model;
        espalier_model_info value{};
        value.hidden = m.spec().hidden;
        value.blocks = static_cast<uint32_t>(m.spec().blocks.size());
        value.vocabulary = m.spec().vocabulary;
        value.max_tokens =
            m.spec().tokenizer.max_tokens > 0 ? m.spec().tokenizer.max_tokens : m.spec().max_positions;
        value.heads = static_cast<uint32_t>(m.spec().heads.size());
        value.forests = static_cast<uint32_t>(m.prepared().forests);
        for (const auto& part : m.spec().parts) {
            value.stored_neurons += part.stored_neurons();
            value.active_neurons += part.active_neurons();
        }
        value.parameters = m.parameters();
        value.file_bytes = m.file().bytes().size();
        value.prepared_bytes = m.prepared_bytes();
        value.isa = name_of(m.kernels().isa);
        value.backend = m.backend().name();
        value.precision = espalier::precision_name(m.precision());
        write_info(info, value, "espalier_model_info");
    });
}

espalier_status espalier_model_get_head(const espalier_model* model, uint32_t head,
                                        espalier_head_info* info) {
    return guarded(nullptr, [&] {
        require(model, "model");
        const auto& heads = model->model->spec().heads;
        if (head >= heads.size())
            throw Error(Status::invalid_argument, "head: expected a number below %zu, found %u", heads.size(),
                        head);
        espalier_head_info value{};
        value.name = model->model->head_name(head);
        value.outputs = heads[head].outputs;
        value.is_regression = heads[head].kind == espalier::HeadKind::regression ? 1 : 0;
        value.labels = heads[head].label_count;
        write_info(info, value, "espalier_head_info");
    });
}

const char* espalier_model_label(const espalier_model* model, uint32_t head, uint32_t label) {
    if (model == nullptr || head >= model->model->spec().heads.size()) return nullptr;
    return label < model->model->spec().heads[head].label_count ? model->model->label(head, label) : nullptr;
}

}  // extern "C"
