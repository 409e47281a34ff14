#include "session.h"

#include <algorithm>
#include <numeric>

namespace espalier::python {
namespace {

// Tokens and sequences of a packed batch, where the model itself is called.
constexpr uint32_t pooled_tokens = 2048, pooled_sequences = 256;

std::string_view view_of(nb::handle text) {
    Py_ssize_t bytes = 0;
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
    if (data == nullptr) throw nb::python_error();  // not a string, or lone surrogates
    return {data, static_cast<size_t>(bytes)};
}

struct Tokens {
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    bool truncated = false;
};

Tokens tokenize(espalier_context* context, const Input& input, size_t capacity) {
    Tokens tokens;
    tokens.ids.resize(capacity);
    tokens.types.resize(capacity);
    size_t count = 0;
    int truncated = 0;
    const espalier_text raw = input.raw();
    api::check(espalier_tokenize, context, &raw, 0u, tokens.ids.data(), tokens.types.data(), capacity, &count,
               &truncated);
    tokens.ids.resize(count);
    tokens.types.resize(count);
    tokens.truncated = truncated != 0;
    return tokens;
}

void look_for_signals() {
    const nb::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

}  // namespace

Inputs read_inputs(nb::object texts, nb::object pairs) {
    Inputs inputs;
    const bool paired = !pairs.is_none();
    inputs.is_list = !nb::isinstance<nb::str>(texts);
    if (inputs.is_list) {
        for (nb::handle text : texts)
            inputs.owners.push_back(nb::borrow(text));
        std::vector<nb::object> seconds;
        if (paired) {
            if (nb::isinstance<nb::str>(pairs))
                refuse("pair: expected one for each of the texts, found a string");
            for (nb::handle text : pairs)
                seconds.push_back(nb::borrow(text));
            if (seconds.size() != inputs.owners.size())
                refuse("pair: expected " + std::to_string(inputs.owners.size()) + " texts, found " +
                       std::to_string(seconds.size()));
        }
        inputs.owners.insert(inputs.owners.end(), seconds.begin(), seconds.end());
    } else {
        inputs.owners = {texts};
        if (paired) inputs.owners.push_back(pairs);
    }
    const size_t count = paired ? inputs.owners.size() / 2 : inputs.owners.size();
    for (size_t i = 0; i < count; ++i) {
        inputs.items.push_back({view_of(inputs.owners[i]), std::nullopt});
        if (paired) inputs.items.back().pair = view_of(inputs.owners[count + i]);
    }
    return inputs;
}

Session::Session(std::shared_ptr<const api::Model> model, int threads, uint32_t max_tokens,
                 uint32_t max_sequences)
    : model_(std::move(model)) {
    espalier_context_options_init(&options_);
    options_.threads = threads;
    options_.max_tokens = max_tokens;
    options_.max_sequences = max_sequences;
    options_.cancel = &cancelled_;
    max_tokens_ = max_tokens != 0 ? max_tokens : model_info(*model_).max_tokens;
    max_sequences_ = max_sequences != 0 ? max_sequences : std::min(64u, max_tokens_);
    context_ = std::make_unique<api::Context>(*model_, &options_);
}

Session::Use::Use(Session& session) : session_(session) {
    if (session.busy_.exchange(true)) refuse("context: in use by another call; use one context a thread");
    __atomic_store_n(&session.cancelled_, 0, __ATOMIC_RELAXED);
}

std::vector<Row> Session::run(const std::vector<Input>& inputs, std::optional<unsigned> head) {
    const size_t capacity = std::min(max_tokens_, model_info(*model_).max_tokens);
    std::vector<Tokens> tokens;
    tokens.reserve(inputs.size());
    for (const Input& input : inputs)
        tokens.push_back(tokenize(get(), input, capacity));
    std::vector<size_t> order(inputs.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return tokens[a].ids.size() > tokens[b].ids.size(); });

    const size_t width = head ? head_info(*model_, *head).outputs : model_info(*model_).hidden;
    std::vector<Row> rows(inputs.size());
    std::vector<int32_t> ids;
    std::vector<uint8_t> types;
    std::vector<uint32_t> offsets;
    std::vector<float> values;
    for (size_t first = 0, next = 0; first < order.size(); first = next) {
        ids.clear();
        types.clear();
        offsets.assign(1, 0);
        while (next < order.size() && next - first < max_sequences_ &&
               ids.size() + tokens[order[next]].ids.size() <= max_tokens_) {
            const Tokens& t = tokens[order[next++]];
            ids.insert(ids.end(), t.ids.begin(), t.ids.end());
            types.insert(types.end(), t.types.begin(), t.types.end());
            offsets.push_back(static_cast<uint32_t>(ids.size()));
        }
        const espalier_batch batch{ids.data(), types.data(), offsets.data(),
                                   static_cast<uint32_t>(next - first)};
        values.resize((next - first) * width);
        if (head) {
            api::check(espalier_score, get(), &batch, *head, values.data());
        } else {
            api::check(espalier_embed, get(), &batch, values.data());
        }
        for (size_t i = first; i < next; ++i) {
            const float* row = values.data() + (i - first) * width;
            rows[order[i]] = {{row, row + width}, tokens[order[i]].truncated};
        }
        look_for_signals();
    }
    return rows;
}

std::unique_ptr<Session> SessionPool::take(int threads) {
    {
        const std::lock_guard lock(mutex_);
        for (auto& session : idle_) {
            if (session->threads() != threads) continue;
            std::swap(session, idle_.back());
            auto taken = std::move(idle_.back());
            idle_.pop_back();
            return taken;
        }
    }
    const uint32_t limit = model_info(*model_).max_tokens;
    return std::make_unique<Session>(model_, threads, std::max(limit, pooled_tokens), pooled_sequences);
}

void SessionPool::give_back(std::unique_ptr<Session> session) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(session));
}

espalier_model_info model_info(const api::Model& model) {
    return model.info();
}

espalier_head_info head_info(const api::Model& model, unsigned head) {
    espalier_head_info info{};
    info.struct_size = sizeof(info);
    espalier_model_get_head(model.get(), head, &info);
    return info;
}

unsigned head_number(const api::Model& model, const std::optional<std::string>& name) {
    const unsigned heads = model.info().heads;
    std::string names;
    for (unsigned h = 0; h < heads; ++h)
        names += (h > 0 ? ", " : "") + std::string(head_info(model, h).name);
    if (heads == 0) refuse("head: the model has none: use embed");
    if (!name && heads == 1) return 0;
    if (!name) refuse("head: the model has " + std::to_string(heads) + ": name one of " + names);
    const auto number = model.head(*name);
    if (!number) refuse("head: expected one of " + names + ", found " + *name);
    return *number;
}

}  // namespace espalier::python
