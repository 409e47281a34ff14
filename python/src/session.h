// A model that several Python objects share, and contexts on it that refuse a second caller instead of
// running two calls at once.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.h"

namespace espalier::python {

struct Input {
    std::string_view text;
    std::optional<std::string_view> pair;
    espalier_text raw() const {
        if (!pair) return {text.data(), text.size(), nullptr, 0};
        return {text.data(), text.size(), pair->data() != nullptr ? pair->data() : "", pair->size()};
    }
};

// What a Python string, or a list of them, holds; the views live as long as the objects.
struct Inputs {
    std::vector<nb::object> owners;
    std::vector<Input> items;
    bool is_list = false;
};
Inputs read_inputs(nb::object texts, nb::object pairs);

struct Row {
    std::vector<float> values;  // a vector, or a head's logits
    bool truncated = false;
};

class Session {
   public:
    Session(std::shared_ptr<const api::Model> model, int threads, uint32_t max_tokens,
            uint32_t max_sequences);

    const api::Model& model() const { return *model_; }
    espalier_context* get() const { return context_->get(); }
    uint32_t max_tokens() const { return max_tokens_; }
    int threads() const { return options_.threads; }
    void cancel() { __atomic_store_n(&cancelled_, 1, __ATOMIC_RELAXED); }

    // Embeddings (no head) or logits of many texts in packed batches, longest first. Called without the GIL;
    // signals are looked for between batches.
    std::vector<Row> run(const std::vector<Input>& inputs, std::optional<unsigned> head);

    // Holds the context for one call.
    class Use {
       public:
        explicit Use(Session& session);
        Use(const Use&) = delete;
        Use& operator=(const Use&) = delete;
        ~Use() { session_.busy_.store(false); }

       private:
        Session& session_;
    };

   private:
    std::shared_ptr<const api::Model> model_;
    espalier_context_options options_;
    int cancelled_ = 0;
    std::atomic<bool> busy_{false};
    uint32_t max_tokens_, max_sequences_;
    std::unique_ptr<api::Context> context_;
};

// Idle sessions of a model, for calls on the model itself: each borrows one, or makes it.
class SessionPool {
   public:
    explicit SessionPool(std::shared_ptr<const api::Model> model) : model_(std::move(model)) {}
    std::unique_ptr<Session> take(int threads);
    void give_back(std::unique_ptr<Session> session);

   private:
    std::shared_ptr<const api::Model> model_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Session>> idle_;
};

struct Model {
    explicit Model(std::shared_ptr<const api::Model> opened) : model(std::move(opened)), pool(model) {}
    std::shared_ptr<const api::Model> model;
    SessionPool pool;
};

// The number of a head: of that name; none given: the only one.
unsigned head_number(const api::Model& model, const std::optional<std::string>& name);
espalier_head_info head_info(const api::Model& model, unsigned head);
espalier_model_info model_info(const api::Model& model);

}  // namespace espalier::python
