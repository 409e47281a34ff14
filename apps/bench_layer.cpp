#include "apps/bench_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "apps/ffn_spec.h"
#include "apps/layer_timing.h"
#include "base/error.h"

namespace espalier {
namespace {

TensorType type_named(const std::string& precision) {
    if (precision == "bf16") return TensorType::bf16;
    if (precision == "int8") return TensorType::s8;
    return TensorType::f32;
}

Routing routing_named(const std::string& name) {
    if (name == "same") return Routing::same;
    if (name == "distinct") return Routing::distinct;
    return Routing::random;
}

// The width of --against dense:W; 0 for the bound.
size_t dense_width(const std::string& against, uint64_t stored) {
    if (against.empty()) return stored;
    if (against == "bound") return 0;
    const auto parts = parse_ffn(against);
    if (parts.size() != 1 || parts[0].kind != PartKind::dense)
        throw Error(Status::invalid_argument, "--against: expected dense:W or bound, found '%s'",
                    against.c_str());
    return parts[0].width;
}

// Largest deviation from the scalar kernels, relative to the rms of y: rounding in another order, and what
// one step of a rounded activation is worth. A dense part is compared with double precision before any
// rounding.
double difference_budget(TensorType type, bool dense) {
    if (type == TensorType::f32) return 1e-4;
    if (type == TensorType::bf16) return dense ? 0.05 : 0.03;
    return dense ? 0.2 : 0.06;
}
double lowest_cosine(TensorType type) {
    return type == TensorType::f32 ? 0.999999 : type == TensorType::bf16 ? 0.999 : 0.99;
}

struct DenseCheck {
    size_t tokens = 0;
    double cosine = 1, max_difference = 0;
};

DenseCheck check_dense(const DenseFfn& dense, size_t hidden, const TokenBuffer& buffer, size_t count,
                       const float* y) {
    // A token passes through all weights in double precision: about a nanosecond each.
    const double cost = 2e-9 * static_cast<double>(hidden) * static_cast<double>(dense.width());
    const auto most = static_cast<size_t>(std::clamp(0.2 / cost, 1.0, 8.0));
    DenseCheck out;
    std::vector<float> x(hidden);
    std::vector<double> expected(hidden);
    double squares = 0;
    for (size_t t = 0; t < count && out.tokens < most; t += std::max<size_t>(1, count / most), ++out.tokens) {
        buffer.widen(t, true, x.data());
        dense.reference(x.data(), expected.data());
        double product = 0, a = 0, b = 0;
        for (size_t i = 0; i < hidden; ++i) {
            const double found = y[t * hidden + i];
            product += found * expected[i];
            a += found * found;
            b += expected[i] * expected[i];
            const double difference = std::fabs(found - expected[i]);
            if (!(difference <= out.max_difference)) out.max_difference = difference;
        }
        squares += b;
        const double cosine = product / std::sqrt(a * b);
        if (!(cosine >= out.cosine)) out.cosine = cosine;
    }
    out.max_difference /= std::sqrt(squares / static_cast<double>(out.tokens * hidden));
    return out;
}

class LayerBench {
   public:
    explicit LayerBench(const LayerOptions& options)
        : options_(options),
          parts_(parse_ffn(options.ffn)),
          type_(type_named(options.precision)),
          kernels_(kernel_table(chosen_isa(options.isa))),
          memory_(options.huge_pages),
          caches_(cache_sizes()) {
        if (parts_.empty())
            throw Error(Status::invalid_argument,
                        "--ffn none: expected at least one part (no feed-forward layer takes 0 us)");
        for (const PartSpec& part : parts_) {
            if (part.has(part_flag::gated))
                throw Error(Status::invalid_argument,
                            "--ffn %s: expected parts without gates (bench model times gated ones)",
                            options.ffn.c_str());
            stored_ += part.stored_neurons();
            active_ += part.active_neurons();
        }
        multiply_adds_ = multiply_adds(parts_, options.hidden);
        against_width_ = dense_width(options.against, stored_);
        against_bound_ = options.against == "bound";
        if (!against_bound_ && against_width_ == 0)
            throw Error(Status::invalid_argument,
                        "--against: expected dense:W, since %s stores no neurons to compare with",
                        options.ffn.c_str());
        equal_width_ = static_cast<size_t>(
            std::llround(static_cast<double>(multiply_adds_) / (2.0 * static_cast<double>(options.hidden))));
    }

    Json run() {
        Json j = heading();
        try {
            backend_ = chosen_backend(options_.backend, kernels_.isa);
            j["backend"] = backend_->name();
            check_memory();
            measure(j);
        } catch (const Error& error) {
            if (error.status() != Status::unsupported) throw;
            j["supported"] = false;
            j["reason"] = std::string("not supported here: ") + error.what();
        }
        return j;
    }

   private:
    Json heading() const {
        return {{"hidden", options_.hidden},
                {"ffn", ffn_text(parts_)},
                {"against", against_bound_ ? "bound" : "dense:" + std::to_string(against_width_)},
                {"batch", options_.batch},
                {"precision", options_.precision},
                {"threads", options_.threads},
                {"isa", name_of(kernels_.isa)},
                {"routing", options_.routing},
                {"supported", true}};
    }

    // Before anything is built: the system would kill us later, without a word.
    void check_memory() {
        const size_t available = available_bytes();
        if (available == 0) return;
        const size_t tokens = std::max<size_t>(options_.batch, 256);
        const size_t buffers = tokens * options_.hidden * 12 + 12 * caches_.third;
        const size_t trees = LayerFfn::estimated_bytes(options_.hidden, parts_, type_) + buffers;
        const auto most = static_cast<size_t>(0.85 * static_cast<double>(available));
        if (trees > most)
            throw Error(Status::out_of_memory,
                        "--ffn %s: expected at most %.1f GB (what is available now), found about %.1f GB",
                        options_.ffn.c_str(), 1e-9 * static_cast<double>(most),
                        1e-9 * static_cast<double>(trees));
        const size_t dense =
            DenseFfn::peak_bytes(options_.hidden, against_width_, type_, std::min<size_t>(tokens, 4096));
        if (!against_bound_ && trees + dense > most) against_bound_ = no_room_ = true;
    }

    std::unique_ptr<DenseFfn> make_dense(size_t width, uint64_t matrix) {
        return std::make_unique<DenseFfn>(options_.hidden, width, type_, *backend_, options_.threads, random_,
                                          matrix, &memory_);
    }

    void measure(Json& j) {
        const size_t hidden = options_.hidden, batch = options_.batch;
        LayerFfn forest(hidden, parts_, type_, kernels_, *backend_, options_.threads, batch, random_,
                        &memory_);
        std::unique_ptr<DenseFfn> dense, equal;
        if (!against_bound_) dense = make_dense(against_width_, 0);
        if (equal_width_ > 0) equal = make_dense(equal_width_, 16);
        const Roofline roofline = measure_roofline(kernels_.isa, type_, options_.threads,
                                                   std::min(0.3, options_.seconds), &memory_);
        TokenSource source(type_, hidden, batch, routing_named(options_.routing), &forest, &memory_);
        {
            // With other tokens than the timed ones.
            TokenSource planning(type_, hidden, batch, Routing::random, nullptr, &memory_);
            const Tokens tokens = planning.next(1);
            forest.plan(tokens, planning.y());
            for (DenseFfn* each : {dense.get(), equal.get()}) {
                if (each != nullptr) each->plan(tokens, planning.y());
            }
        }
        const auto timed = [&](auto& layer) {
            return TimedLayer([&layer](const Tokens& tokens, float* y) { layer.run(tokens, y); }, hidden,
                              batch);
        };
        TimedLayer forest_times = timed(forest);
        std::optional<TimedLayer> dense_times, equal_times;
        std::vector<TimedLayer*> layers{&forest_times};
        if (dense) layers.push_back(&dense_times.emplace(timed(*dense)));
        if (equal) layers.push_back(&equal_times.emplace(timed(*equal)));
        time_in_turns(layers, source, options_.seconds);
        if (options_.cold) {
            CacheEvictor evictor(&memory_);
            for (TimedLayer* layer : layers)
                layer->cold_calls(source, evictor);
            evicted_ = evictor.bytes();
        }

        const Tokens tokens = source.next(1);
        forest.run(tokens, source.y());
        const LayerCheck check = forest.check(tokens, source.buffer(), source.y());
        const TouchedWeights touched = forest.touched(caches_.second);
        const double operations = 2.0 * static_cast<double>(multiply_adds_) * static_cast<double>(batch);
        const double io_bytes =
            static_cast<double>(batch * hidden) * static_cast<double>(bytes_of(type_) + 4);
        const Bound bound =
            bound_of(roofline, caches_, operations, io_bytes, static_cast<double>(touched.bytes),
                     static_cast<double>(touched.cold_bytes));

        j["forest_us"] = forest_times.median_us();
        if (dense) {
            j["dense_us"] = dense_times->median_us();
            j["ratio"] = dense_times->median_us() / forest_times.median_us();
        } else {
            const Bound least = dense_bound(roofline, io_bytes);
            j["dense_bound_us"] = least.us;
            j["dense_bound_by"] = least.by;
            j["dense_bound_why"] = no_room_ ? "the dense layer does not fit in memory" : "asked for";
            j["ratio_to_bound"] = least.us / forest_times.median_us();
        }
        if (equal) {
            j["equal_flops_us"] = equal_times->median_us();
            j["equal_flops_width"] = equal_width_;
        }
        j["none_us"] = 0;
        j["distinct_leaves"] = forest.distinct_leaves();
        add_times(j, "forest", forest_times, operations);
        if (dense) {
            const double dense_operations = 4.0 * static_cast<double>(against_width_ * hidden * batch);
            add_times(j, "dense", *dense_times, dense_operations);
            if (roofline.gflops > 0)
                j["dense_peak_fraction"] =
                    dense_operations / dense_times->median_us() * 1e-3 / roofline.gflops;
        }
        if (equal)
            add_times(j, "equal_flops", *equal_times,
                      4.0 * static_cast<double>(equal_width_ * hidden * batch));
        j["stored_neurons"] = stored_;
        j["active_neurons"] = active_;
        j["multiply_adds_per_token"] = multiply_adds_;
        j["flop_ratio"] =
            2.0 * static_cast<double>(std::max<uint64_t>(against_width_, against_bound_ ? stored_ : 0)) *
            static_cast<double>(hidden) / static_cast<double>(multiply_adds_);
        j["bound_us"] = bound.us;
        j["bound_by"] = bound.by;
        j["bound_fraction"] = bound.us / forest_times.median_us();
        j["touched_rows"] = touched.rows;
        j["touched_bytes"] = touched.bytes;
        j["touched_bytes_beyond_second_level"] = touched.cold_bytes;
        j["io_bytes"] = io_bytes;
        j["roofline"] = {{"gflops", roofline.gflops},
                         {"third_level_gb_per_s", roofline.third_level_gbs},
                         {"memory_gb_per_s", roofline.memory_gbs},
                         {"second_level_bytes", caches_.second},
                         {"third_level_bytes", caches_.third}};
        j["verified"] = {{"tokens", check.tokens},
                         {"equal_leaves", check.equal_leaves},
                         {"unexplained_leaves", check.unexplained_leaves},
                         {"max_difference", check.max_difference},
                         {"budget", difference_budget(type_, check_has_dense())}};
        if (dense) j["dense_verified"] = verify_dense(*dense, source);
        if (equal) j["equal_flops_verified"] = verify_dense(*equal, source);
        j["forest_kernels"] = forest.description();
        if (dense) {
            j["dense_kernels"] = {{"up", dense->up_implementation()},
                                  {"down", dense->down_implementation()},
                                  {"rows_at_once", dense->chunk()}};
        }
        j["forest_weight_bytes"] = forest.weight_bytes();
        if (dense) j["dense_weight_bytes"] = dense->weight_bytes();
        j["huge_pages"] = options_.huge_pages;
        j["huge_page_bytes"] = huge_page_bytes();
        add_method(j);
    }

    bool check_has_dense() const {
        return std::any_of(parts_.begin(), parts_.end(), [](const PartSpec& p) { return !p.is_forest(); });
    }

    Json verify_dense(DenseFfn& dense, TokenSource& source) const {
        const Tokens tokens = source.next(1);
        dense.run(tokens, source.y());
        const DenseCheck check =
            check_dense(dense, options_.hidden, source.buffer(), options_.batch, source.y());
        return {{"tokens", check.tokens},
                {"cosine", check.cosine},
                {"lowest_cosine", lowest_cosine(type_)},
                {"max_difference", check.max_difference}};
    }

    // What streaming the weights once a call, or the arithmetic, would take at the least.
    Bound dense_bound(const Roofline& roofline, double io_bytes) const {
        const auto width = static_cast<double>(against_width_ > 0 ? against_width_ : stored_);
        const double weights = 2.0 * width * static_cast<double>(options_.hidden * bytes_of(type_));
        return bound_of(roofline, caches_,
                        4.0 * width * static_cast<double>(options_.hidden * options_.batch), io_bytes,
                        weights, weights > static_cast<double>(caches_.second) ? weights : 0);
    }

    void add_times(Json& j, const std::string& name, const TimedLayer& times, double operations) const {
        j[name + "_p99_us"] = times.p99_us();
        j[name + "_ns_per_token"] = times.median_us() * 1e3 / static_cast<double>(options_.batch);
        j[name + "_gflops"] = operations / times.median_us() * 1e-3;
        j[name + "_calls"] = times.calls();
        j[name + "_groups"] = times.groups();
        if (times.cold_count() > 0) j[name + "_cold_us"] = times.cold_us();
    }

    void add_method(Json& j) const {
        Json m;
        m["time"] =
            "median over groups of calls, in turns of at most about 50 ms by layer (longer where a call is); "
            "p99 of groups; a group is one "
            "look at the clock before and after; each turn starts untimed for at least 30 % of its time "
            "(calls above 200 ms: not), so weights are warm";
        m["inputs"] =
            "random normal, new for every call, at most 256 tokens or one batch ahead; both sides read the "
            "type of the precision and write f32; quantising is timed on neither side; int8: one scale a "
            "token for forests, one static scale for dense";
        m["weights"] =
            "random normal by 1/sqrt(inputs); node biases and thresholds of deviation 0.01, so that every "
            "node is nearly a coin toss; int8: one scale a row of trees and an output of dense";
        m["dense"] =
            "weights packed once, GELU (erf) fused, hidden activations in the precision's type (int8: u8 "
            "with "
            "a calibrated static scale), rows at once by trial";
        m["cold"] = evicted_ > 0 ? "before each call " + std::to_string(evicted_ >> 20) +
                                       " MiB are written through the caches; calls above 100 ms: not measured"
                                 : "not measured";
        m["bound"] =
            "the longest of: multiply-adds at the measured peak; distinct rows touched by a call, without "
            "levels that fit the second-level cache from the root, and input and output where they exceed "
            "it, at the third level's bandwidth; input and output at memory's bandwidth where they and the "
            "touched rows exceed the third level (with these rows, where they exceed it alone)";
        m["verified"] =
            "one call against the scalar kernels on the same data: share of equal leaves, largest difference "
            "over tokens with equal leaves, relative to the rms of y; dense against double precision and "
            "unrounded weights";
        j["method"] = std::move(m);
    }

    const LayerOptions& options_;
    std::vector<PartSpec> parts_;
    TensorType type_;
    const KernelTable& kernels_;
    HugeMemory memory_;
    CacheSizes caches_;
    RandomRows random_{42};
    std::unique_ptr<DenseBackend> backend_;
    uint64_t stored_ = 0, active_ = 0, multiply_adds_ = 0;
    size_t against_width_ = 0, equal_width_ = 0, evicted_ = 0;
    bool against_bound_ = false, no_room_ = false;
};

}  // namespace

Json bench_layer(const LayerOptions& options) {
    return LayerBench(options).run();
}

void require_verified(const Json& j) {
    if (!j["supported"].get<bool>()) return;
    const Json& v = j["verified"];
    const auto number = [](const Json& value) { return value.is_number() ? value.get<double>() : NAN; };
    if (!(number(v["max_difference"]) <= number(v["budget"])))
        throw Error(Status::internal,
                    "bench layer: the forest differs from the scalar kernels by %g of the rms",
                    number(v["max_difference"]));
    if (number(v["unexplained_leaves"]) > 0)
        throw Error(Status::internal,
                    "bench layer: %g of the walks end in another leaf than the scalar kernels'",
                    number(v["unexplained_leaves"]));
    for (const char* name : {"dense_verified", "equal_flops_verified"}) {
        if (j.contains(name) && !(number(j[name]["cosine"]) >= number(j[name]["lowest_cosine"])))
            throw Error(Status::internal, "bench layer: %s: cosine %g to double precision", name,
                        number(j[name]["cosine"]));
    }
}

}  // namespace espalier
