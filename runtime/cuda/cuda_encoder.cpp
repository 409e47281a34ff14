#include "runtime/cuda/cuda_encoder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "kernels/cuda/byte_products.h"
#include "kernels/cuda/one_row.h"
#include "kernels/quantize/rotate.h"
#include "runtime/arena.h"
#include "runtime/block_loop.h"
#include "runtime/decoder.h"

namespace espalier {

CudaEncoder::CudaEncoder(const Model& model, int number, const WorkspaceShape& shape, const int* cancel)
    : model_(model), most_(shape), cancel_(cancel), weights_(CudaModel::of(model, number)) {
    cuda::check(cudaSetDevice(number), "choosing the device");
    allocate();
    cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
}

CudaEncoder::~CudaEncoder() {
    graph_.reset();
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaEncoder::allocate() {
    const ModelSpec& spec = model_.spec();
    const size_t tokens = most_.max_tokens, hidden = spec.hidden, rows = tokens * hidden,
                 bytes = is_8bit() ? bytes_of(TensorType::bf16) : bytes_of(model_.precision());
    const bool decodes = spec.family == Family::decoder;
    size_t qkv = 0, query = hidden, inner = 0, gated = 0, activations = 0, counts = 0, order = 0,
           attention = 0;
    bool several = false, parallel = false;
    for (size_t b = 0; b < spec.blocks.size(); ++b) {
        const BlockSpec& block = spec.blocks[b];
        qkv = std::max<size_t>(qkv, block.has(block_flag::attention) ? block.qkv_width() : 0);
        query = std::max<size_t>(query, block.has(block_flag::attention) ? block.query_width() : 0);
        if (block.has(block_flag::attention) && attends_in_bytes(block))
            attention = std::max(
                attention, cuda::byte_attention_scratch(block.heads, block.kv_heads, block.head_dimension,
                                                        tokens, most_.max_sequences));
        parallel = parallel || block.has(block_flag::parallel);
        several = several || block.part_count > 1;
        for (const CudaPart& part : weights_->blocks()[b].parts) {
            inner = std::max(inner, part.up.shape.outputs);
            if (part.spec->has(part_flag::gated)) gated = std::max(gated, part.up.shape.outputs / 2);
            if (!part.spec->is_forest()) continue;
            if (part.spec->kind == PartKind::leaf_forest && (is_bf16() || is_8bit()))
                inner = std::max(inner, cuda::inner_stride(part.leaf_forest));
            const cuda::Trees& trees =
                part.spec->kind == PartKind::leaf_forest ? part.leaf_forest.trees : part.neuron_forest.trees;
            activations = std::max(activations, cuda::activation_floats(trees, tokens));
            counts = std::max(counts, cuda::count_words(trees, tokens));
            order = std::max(order, cuda::order_words(trees, tokens));
        }
    }
    routes_.resize(model_.prepared().forests);
    const auto lay_out = [&](Arena arena) {
        ids_ = arena.take<int32_t>(3 * tokens + most_.max_sequences + 1);
        places_ = ids_ + tokens;
        types_ = places_ + tokens;
        x_ = arena.take<float>(rows);
        y_ = arena.take<float>(rows);
        normed_ = arena.take<float>(is_pre() ? rows : 0);
        extra_ = arena.take<float>(several ? rows : 0);
        beside_x_ = arena.take<float>(parallel ? rows : 0);
        beside_sum_ = arena.take<float>(parallel ? rows : 0);
        rounded_ = arena.take<std::byte>(is_bf16()   ? rows * bytes
                                         : is_8bit() ? tokens * cuda::byte_row(std::max(hidden, query))
                                                     : 0);
        rounded_scale_ = arena.take<float>(is_8bit() ? tokens : 0);
        inner_scale_ = arena.take<float>(is_8bit() ? tokens : 0);
        inner_bytes_ = arena.take<int8_t>(is_8bit() ? tokens * inner : 0);
        qkv_ = arena.take<std::byte>(tokens * qkv * (decodes ? sizeof(float) : bytes));
        mix_ = arena.take<std::byte>(tokens * query * (is_8bit() ? sizeof(float) : bytes));
        attention_ = arena.take<std::byte>(attention);
        inner_ = arena.take<std::byte>(tokens * inner * (is_8bit() ? sizeof(float) : bytes));
        gated_ = arena.take<std::byte>(tokens * gated * bytes);
        logits_ = arena.take<float>(decodes ? decoder_logit_rows * weights_->output().shape.outputs : 0);
        pooled_ = arena.take<float>(most_.max_sequences * hidden);
        for (const CudaBlock& block : weights_->blocks()) {
            for (const CudaPart& part : block.parts) {
                if (!part.spec->is_forest()) continue;
                routes_[part.forest] = {arena.take<uint32_t>(tokens * part.spec->trees),
                                        arena.take<float>(tokens * part.spec->trees)};
            }
        }
        forest_.tokens = tokens;
        forest_.activations = arena.take<float>(activations);
        forest_.counts = arena.take<uint32_t>(counts);
        forest_.order = arena.take<uint32_t>(order);
        forest_.inner = inner_;
        forest_.inner_bytes = inner_bytes_;
        forest_.inner_scale = inner_scale_;
        return arena.used();
    };
    memory_ = cuda::Buffer(lay_out(Arena(nullptr)));
    lay_out(Arena(memory_.as<std::byte>()));
}

void CudaEncoder::check_cancelled() const {
    if (cancel_ != nullptr && __atomic_load_n(cancel_, __ATOMIC_RELAXED) != 0)
        throw Error(Status::cancelled, "cancelled by the caller");
}

// Ids, each token's place in its sequence, types and offsets, in one copy.
void CudaEncoder::stage(const Batch& batch) {
    tokens_ = batch.tokens();
    sequences_ = batch.sequences();
    longest_ = 0;
    const size_t before = cache_ ? cache_->length() : 0;
    seen_ = cache_ ? cache_->bound(before + tokens_) : 0;
    staged_.resize(3 * tokens_ + sequences_ + 1);
    int32_t* places = staged_.data() + tokens_;
    std::copy(batch.ids.begin(), batch.ids.end(), staged_.begin());
    for (size_t s = 0; s < sequences_; ++s) {
        longest_ = std::max(longest_, batch.length(s));
        for (size_t t = 0; t < batch.length(s); ++t)
            places[batch.offsets[s] + t] = static_cast<int32_t>(before + t);
    }
    for (size_t t = 0; t < tokens_; ++t)
        staged_[2 * tokens_ + t] = batch.types.empty() ? 0 : batch.types[t];
    for (size_t s = 0; s <= sequences_; ++s)
        staged_[3 * tokens_ + s] = static_cast<int32_t>(batch.offsets[s]);
    places_ = ids_ + tokens_;
    types_ = places_ + tokens_;
    offsets_ = reinterpret_cast<uint32_t*>(types_ + tokens_);
    cuda::check(cudaMemcpyAsync(ids_, staged_.data(), staged_.size() * sizeof(int32_t),
                                cudaMemcpyHostToDevice, stream_),
                "copying ids");
}

void CudaEncoder::run(const Batch& batch, const Observers& observers) {
    cuda::check(cudaSetDevice(weights_->device().number), "choosing the device");
    stage(batch);
    launch(batch, observers);
    cuda::check(cudaStreamSynchronize(stream_), "running");
}

// A shape that comes a second time in a row is recorded: the first time, libraries load and choose. A
// decoder's next token is such a shape until the bound of what it sees grows.
void CudaEncoder::launch(const Batch& batch, const Observers& observers) {
    const bool plain = !observers.any() && observers.without_block == Observers::none &&
                       observers.without_attention == Observers::none;
    const Shape shape{tokens_, sequences_, longest_, seen_};
    const auto record = [&] {
        BlockLoop::run(*this, model_.spec(), batch, observers);
        if (cache_) make_logits(tokens_ - 1, 1);
    };
    logits_first_ = tokens_ - 1;
    logits_rows_ = 1;
    y_is_due_ = false;
    const bool is_recorded = graph_ && recorded_ == shape;
    if (plain && (shape == last_ || is_recorded)) {
        check_cancelled();
        if (!is_recorded) graph_.emplace(stream_, record);
        recorded_ = shape;
        graph_->launch(stream_);
    } else {
        record();
    }
    last_ = plain ? shape : Shape{};
}

void CudaEncoder::run_again(const Batch& batch) {
    launch(batch, {});
}

void CudaEncoder::embed(const Batch&) {
    const cuda::Norm& norm = weights_->embedding_norm();
    cuda::embed(weights_->embeddings(), {ids_, places_, types_, tokens_}, x_, stream_);
    if (norm.weight != nullptr) {
        normalise(norm, {.x = x_, .y = x_}, !is_pre());
    } else if (!is_pre()) {
        round_input(x_);
    }
}

// What layers read next, in the form that they read it in.
void CudaEncoder::round_input(const float* x, bool rotated) {
    if (is_bf16()) cuda::round(x, rounded_, row_floats(), stream_);
    if (!is_8bit()) return;
    cuda::RoundedRows call;
    call.x = x;
    call.rows = tokens_;
    call.columns = model_.spec().hidden;
    call.rotated = rotated;
    call.y = static_cast<int8_t*>(rounded_);
    call.scale = rounded_scale_;
    cuda::round_rows(call, stream_);
}

// is_read: layers read y next.
void CudaEncoder::normalise(const cuda::Norm& norm, const cuda::NormCall& call, bool is_read) {
    cuda::NormCall whole = call;
    whole.rounded = is_read && is_bf16() ? rounded_ : nullptr;
    whole.tokens = tokens_;
    whole.early = begins_early();
    cuda::normalise(norm, whole, stream_);
    if (is_read && is_8bit()) round_input(call.y);
}

// x + y, and its norm, in one launch.
void CudaEncoder::normalise_input(const cuda::Norm& norm) {
    const bool due = std::exchange(y_is_due_, false);
    normalise(norm, {.x = x_, .residual = due ? y_ : nullptr, .y = normed_, .sum = due ? x_ : nullptr}, true);
}

// A decoder's output matrix reads what comes of it.
void CudaEncoder::final_norm() {
    const cuda::Norm& norm = weights_->final_norm();
    if (norm.weight == nullptr) {
        settle();
        if (cache_) round_input(x_);
    } else {
        const bool due = std::exchange(y_is_due_, false);
        normalise(norm, {.x = x_, .residual = due ? y_ : nullptr, .y = x_}, cache_.has_value());
    }
}

// Adds what the sublayer left in y: post-norm x = norm(y + x), pre-norm x = x + y.
void CudaEncoder::add_output(const cuda::Norm& norm) {
    if (is_pre()) {
        y_is_due_ = true;
    } else {
        normalise(norm, {.x = y_, .narrow = narrow_y_, .residual = x_, .y = x_}, true);
    }
}

void CudaEncoder::settle() {
    if (std::exchange(y_is_due_, false)) cuda::add(y_, x_, row_floats(), stream_);
}

void CudaEncoder::dense(const CudaDense& layer, const void* x, void* y, size_t rows) {
    const cuda::DenseCall call{layer.weight, layer.bias, x, y, rows, stream_};
    if (rows == 1) {
        cuda::multiply_row(layer.shape, call, {false, begins_early()});
    } else {
        dense_.run(layer.shape, call);
    }
}

void CudaEncoder::dense(const CudaDense& layer, const void* x, const float* x_scale, void* y) {
    if (!is_8bit()) return dense(layer, x, y, tokens_);
    cuda::ByteProduct product;
    product.a = static_cast<const int8_t*>(x);
    product.a_scale = x_scale;
    product.b = static_cast<const int8_t*>(layer.weight);
    product.b_scale = layer.scale;
    product.bias = static_cast<const float*>(layer.bias);
    product.rows = static_cast<uint32_t>(tokens_);
    product.columns = static_cast<uint32_t>(layer.shape.outputs);
    product.depth = static_cast<uint32_t>(layer.shape.inputs);
    product.activation = layer.shape.activation;
    product.y = y;
    product.narrow = layer.shape.output == TensorType::bf16;
    cuda::multiply(product, stream_);
}

void CudaEncoder::attention(size_t b, const Batch&) {
    const BlockSpec& spec = model_.spec().blocks[b];
    const CudaBlock& block = weights_->blocks()[b];
    dense(block.qkv, layer_input(), rounded_scale_, qkv_);
    if (cache_) {
        cuda::NewTokens now;
        now.qkv = static_cast<const float*>(qkv_);
        now.places = places_;
        now.tokens = tokens_;
        now.seen = seen_;
        now.out = mix_;
        now.early = begins_early();
        cache_->attend(b, now, stream_);
    } else {
        mix_sequences(spec);
    }
    const void* mix = mix_;
    if (is_8bit()) {
        cuda::RoundedRows rounded;
        rounded.x = mix_;
        rounded.narrow = !attends_in_bytes(spec);
        rounded.rows = tokens_;
        rounded.columns = spec.query_width();
        rounded.rotated = true;
        rounded.y = static_cast<int8_t*>(rounded_);
        rounded.scale = rounded_scale_;
        cuda::round_rows(rounded, stream_);
        mix = rounded_;
    }
    dense(block.attention_out, mix, rounded_scale_, y_);
    narrow_y_ = block.narrow_attention;
}

// Every token of a sequence against every other.
void CudaEncoder::mix_sequences(const BlockSpec& spec) {
    cuda::AttentionCall call;
    call.heads = spec.heads;
    call.kv_heads = spec.kv_heads;
    call.head_dimension = spec.head_dimension;
    call.scale = spec.attention_scale;
    call.type = is_8bit() && !attends_in_bytes(spec) ? TensorType::bf16 : model_.precision();
    call.tokens = tokens_;
    call.scratch = attention_;
    call.qkv = qkv_;
    call.out = mix_;
    call.offsets = offsets_;
    call.sequences = sequences_;
    call.longest = longest_;
    call.stream = stream_;
    cuda::attend(call);
}

// The answer: whether there is anything in y now. A dense part that a leaf forest of its block runs gives
// nothing by itself.
bool CudaEncoder::run_part(size_t b, size_t p, bool written) {
    const CudaPart& part = weights_->blocks()[b].parts[p];
    narrow_y_ = weights_->blocks()[b].narrow_parts;
    if (part.spec->kind == PartKind::dense) {
        if (part.up.weight == nullptr) return false;
        dense_part(part, written);
        return true;
    }
    // Neurons of trees are read where they stand, not turned: 8-bit x neither, from the first on.
    if (is_8bit() && is_first_neurons(b, p)) round_input(input(), false);
    cuda::ForestCall call;
    call.x = layer_input();
    call.x_scale = rounded_scale_;
    call.walk_x = input();
    call.tokens = tokens_;
    call.y = y_;
    call.accumulate = written;
    call.narrow = narrow_y_;
    call.leaf = routes_[part.forest].leaf;
    call.margin = routes_[part.forest].margin;
    call.scratch = forest_;
    call.device = &weights_->device();
    call.stream = stream_;
    if (part.spec->kind == PartKind::leaf_forest) {
        cuda::run(part.leaf_forest, call);
    } else {
        cuda::run(part.neuron_forest, call);
    }
    return true;
}

bool CudaEncoder::is_first_neurons(size_t b, size_t p) const {
    const auto& parts = weights_->blocks()[b].parts;
    const auto is_neurons = [](const CudaPart& part) { return part.spec->kind == PartKind::neuron_forest; };
    return is_neurons(parts[p]) &&
           std::none_of(parts.begin(), parts.begin() + static_cast<ptrdiff_t>(p), is_neurons);
}

void CudaEncoder::dense_part(const CudaPart& part, bool written) {
    const void* inner = inner_;
    if (part.spec->has(part_flag::gated)) {
        inner = gated(part);
    } else {
        dense(part.up, layer_input(), rounded_scale_, inner_);
    }
    if (is_8bit()) {
        cuda::RoundedRows rounded;
        rounded.x = inner_;
        rounded.rows = tokens_;
        rounded.columns = part.up.shape.outputs;
        rounded.rotated = rotation_span(part.spec->width) > 1;
        rounded.y = inner_bytes_;
        rounded.scale = inner_scale_;
        cuda::round_rows(rounded, stream_);
        inner = inner_bytes_;
    }
    dense(part.down, inner, inner_scale_, written ? extra_ : y_);
    if (written) cuda::add(extra_, y_, row_floats(), stream_);
}

// act(x G) * (x U); not of 8 bits.
const void* CudaEncoder::gated(const CudaPart& part) {
    const Activation activation = part.spec->activation;
    if (tokens_ == 1) {
        cuda::DenseShape shape = part.up.shape;
        shape.activation = activation;
        cuda::multiply_row(shape, {part.up.weight, part.up.bias, layer_input(), gated_, 1, stream_},
                           {true, begins_early()});
    } else {
        dense(part.up, layer_input(), inner_, tokens_);
        cuda::multiply_gates(
            {activation, model_.precision(), inner_, tokens_, part.up.shape.outputs / 2, gated_}, stream_);
    }
    return gated_;
}

void CudaEncoder::clear_output() {
    narrow_y_ = false;
    cuda::check(cudaMemsetAsync(y_, 0, row_floats() * sizeof(float), stream_), "clearing");
}

namespace {

void copy_rows(float* to, const float* from, size_t count, cudaStream_t stream) {
    cuda::check(cudaMemcpyAsync(to, from, count * sizeof(float), cudaMemcpyDeviceToDevice, stream),
                "copying");
}

}  // namespace

void CudaEncoder::start_beside() {
    settle();
    copy_rows(beside_x_, x_, row_floats(), stream_);
    copy_rows(beside_sum_, x_, row_floats(), stream_);
}

// x and what layers read of it are again as they were before the block beside.
void CudaEncoder::go_back_beside() {
    copy_rows(x_, beside_x_, row_floats(), stream_);
    if (!is_pre()) round_input(x_);
}

void CudaEncoder::collect_beside() {
    settle();
    cuda::add_difference(x_, beside_x_, beside_sum_, row_floats(), stream_);
}

void CudaEncoder::end_beside() {
    copy_rows(x_, beside_sum_, row_floats(), stream_);
    if (!is_pre()) round_input(x_);
}

void CudaEncoder::copy_back(void* target, const void* from, size_t bytes) {
    cuda::check(cudaMemcpyAsync(target, from, bytes, cudaMemcpyDeviceToHost, stream_), "copying results");
    cuda::check(cudaStreamSynchronize(stream_), "copying results");
}

void CudaEncoder::show(const Observers::Hook& hook, size_t layer, const float* x) {
    if (hook.function == nullptr) return;
    std::vector<float> values(row_floats());
    copy_back(values.data(), x, values.size() * sizeof(float));
    hook(layer, values.data(), tokens_);
}

void CudaEncoder::show_layer(const Observers& observers, size_t layer) {
    if (observers.layer.function != nullptr) settle();
    show(observers.layer, layer, x_);
}

void CudaEncoder::show_ffn_input(const Observers& observers, size_t b) {
    show(observers.ffn_input, b, input());
}

void CudaEncoder::hidden(float* x) {
    copy_back(x, x_, row_floats() * sizeof(float));
}

void CudaEncoder::pooled(Pooling pooling, float* target) {
    const size_t hidden = model_.spec().hidden;
    const auto which = pooling == Pooling::mean   ? cuda::PooledToken::mean
                       : pooling == Pooling::last ? cuda::PooledToken::last
                                                  : cuda::PooledToken::first;
    cuda::pool(which, x_, offsets_, sequences_, hidden, pooled_, stream_);
    copy_back(target, pooled_, sequences_ * hidden * sizeof(float));
}

void CudaEncoder::routes(std::span<const ForestRoutes> target) {
    for (const CudaBlock& block : weights_->blocks()) {
        for (const CudaPart& part : block.parts) {
            if (!part.spec->is_forest()) continue;
            const size_t count = tokens_ * part.spec->trees;
            const ForestRoutes &from = routes_[part.forest], &to = target[part.forest];
            copy_back(to.leaf, from.leaf, count * sizeof(uint32_t));
            copy_back(to.margin, from.margin, count * sizeof(float));
        }
    }
}

void CudaEncoder::use_cache(const KeyValueCache& sequence) {
    cuda::check(cudaSetDevice(weights_->device().number), "choosing the device");
    cache_.emplace(model_, sequence, most_.max_tokens);
    host_logits_ = cuda::HostBuffer(decoder_logit_rows * model_.spec().vocabulary * sizeof(float));
}

// Of hidden states of the last run; they come back with the stream.
void CudaEncoder::make_logits(size_t first, size_t rows) {
    const CudaDense& output = weights_->output();
    const size_t at = first * model_.spec().hidden, row = model_.spec().vocabulary * sizeof(float),
                 pitch = output.shape.outputs * sizeof(float);
    const void* x =
        is_bf16() ? static_cast<const uint16_t*>(rounded_) + at : static_cast<const void*>(x_ + at);
    dense(output, x, logits_, rows);
    cuda::check(cudaMemcpy2DAsync(host_logits_.as<void>(), row, logits_, pitch, row, rows,
                                  cudaMemcpyDeviceToHost, stream_),
                "copying results");
}

// Those of the last token are made with its run.
const float* CudaEncoder::logits(size_t first, size_t rows) {
    if (first != logits_first_ || rows != logits_rows_) {
        make_logits(first, rows);
        cuda::check(cudaStreamSynchronize(stream_), "running");
        logits_first_ = first;
        logits_rows_ = rows;
    }
    return host_logits_.as<float>();
}

bool cuda_compiled_in() noexcept {
    return true;
}

std::unique_ptr<DeviceEncoder> make_cuda_encoder(const Model& model, int number, const WorkspaceShape& shape,
                                                 const int* cancel) {
    return std::make_unique<CudaEncoder>(model, number, shape, cancel);
}

}  // namespace espalier
