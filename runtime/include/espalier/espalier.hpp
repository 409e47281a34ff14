// A thin C++ wrapper over the C API: RAII handles, exceptions for errors, std::string and std::vector. Header
// only; C++17. Everything that espalier.h says of threads, ownership and lifetimes holds here too.
#ifndef ESPALIER_HPP
#define ESPALIER_HPP

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "espalier/espalier.h"

namespace espalier::api {

class Exception : public std::runtime_error {
   public:
    explicit Exception(const espalier_error& error)
        : std::runtime_error(error.message), status_(error.status) {}
    espalier_status status() const noexcept { return status_; }

   private:
    espalier_status status_;
};

// Calls a C function with a fresh error as its last argument.
template <typename Function, typename... Arguments>
void check(Function function, Arguments... arguments) {
    espalier_error error{};
    if (function(arguments..., &error) != ESPALIER_OK) throw Exception(error);
}

struct Classification {
    unsigned label = 0;
    std::string name;  // empty where the head has no labels
    float probability = 0;
    bool truncated = false;
    std::vector<float> logits;
};

class Model {
   public:
    explicit Model(const std::string& path, const espalier_model_options* options = nullptr) {
        espalier_model* model = nullptr;
        check(espalier_model_open, path.c_str(), options, &model);
        handle_.reset(model);
    }
    Model(const void* data, size_t bytes, const espalier_model_options* options = nullptr) {
        espalier_model* model = nullptr;
        check(espalier_model_from_memory, data, bytes, options, &model);
        handle_.reset(model);
    }
    espalier_model_info info() const {
        espalier_model_info info{};
        info.struct_size = sizeof(info);
        espalier_model_get_info(handle_.get(), &info);
        return info;
    }
    // The number of the head of that name; none: std::nullopt.
    std::optional<unsigned> head(std::string_view name) const {
        espalier_head_info head{};
        head.struct_size = sizeof(head);
        for (unsigned h = 0; espalier_model_get_head(handle_.get(), h, &head) == ESPALIER_OK; ++h) {
            if (name == head.name) return h;
        }
        return std::nullopt;
    }
    const espalier_model* get() const { return handle_.get(); }

   private:
    struct Close {
        void operator()(espalier_model* model) const { espalier_model_close(model); }
    };
    std::unique_ptr<espalier_model, Close> handle_;
};

// One a thread. The model must outlive it.
class Context {
   public:
    explicit Context(const Model& model, const espalier_context_options* options = nullptr) : model_(&model) {
        espalier_context* context = nullptr;
        check(espalier_context_create, model.get(), options, &context);
        handle_.reset(context);
    }
    Classification classify(std::string_view text, unsigned head = 0) {
        return classify_text({text.data(), text.size(), nullptr, 0}, head);
    }
    Classification classify(std::string_view text, std::string_view pair, unsigned head = 0) {
        return classify_text(
            {text.data(), text.size(), pair.data() != nullptr ? pair.data() : "", pair.size()}, head);
    }
    std::vector<float> embed(std::string_view text) {
        const espalier_text input{text.data(), text.size(), nullptr, 0};
        std::vector<float> vector(model_->info().hidden);
        check(espalier_embed_text, handle_.get(), &input, vector.data(), static_cast<int*>(nullptr));
        return vector;
    }
    // A decoder's continuation of a prompt, without it.
    std::string generate(std::string_view prompt, const espalier_generate_options* options = nullptr) {
        const espalier_text input{prompt.data(), prompt.size(), nullptr, 0};
        std::string written;
        const espalier_token_callback append = [](void* user, int32_t, const char* text, size_t bytes) {
            static_cast<std::string*>(user)->append(text, bytes);
            return 0;
        };
        check(espalier_generate, handle_.get(), &input, options, append, static_cast<void*>(&written),
              static_cast<espalier_generation*>(nullptr));
        return written;
    }
    espalier_context* get() const { return handle_.get(); }

   private:
    Classification classify_text(const espalier_text& input, unsigned head) {
        espalier_head_info info{};
        info.struct_size = sizeof(info);
        espalier_model_get_head(model_->get(), head, &info);
        Classification result;
        result.logits.resize(info.outputs);
        espalier_classification raw{};
        check(espalier_classify_text, handle_.get(), &input, head, &raw, result.logits.data());
        result.label = raw.label;
        result.name = raw.name != nullptr ? raw.name : "";
        result.probability = raw.probability;
        result.truncated = raw.truncated != 0;
        return result;
    }
    struct Destroy {
        void operator()(espalier_context* context) const { espalier_context_destroy(context); }
    };
    const Model* model_;
    std::unique_ptr<espalier_context, Destroy> handle_;
};

}  // namespace espalier::api

#endif
