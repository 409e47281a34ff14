#include "apps/fuse/merge.h"

#include <numeric>

#include "base/error.h"
#include "model_format/schema.h"

namespace espalier {
namespace {

bool joins(const PartSpec& a, const PartSpec& b) {
    if (a.kind != b.kind || a.activation != b.activation ||
        a.has(part_flag::gated) != b.has(part_flag::gated))
        return false;
    if (a.kind == PartKind::dense) return true;
    return a.depth == b.depth && a.leaf_width == b.leaf_width && a.tie == b.tie && a.routes_on == b.routes_on;
}

// Adds one merged part's tensors.
class Merger {
   public:
    Merger(const std::shared_ptr<const SourceModel>& source, const MergedPart& part, uint32_t to_block,
           uint32_t to_part, Import& import)
        : source_(source), part_(part), block_(to_block), number_(to_part), import_(import) {}

    void run() {
        for (const TensorNeed& need : tensors_of(import_.spec)) {
            const std::string name = need.name.text, prefix = part_tensor(block_, number_, "").text;
            if (name.starts_with(prefix)) add(name.substr(prefix.size()), need);
        }
    }

   private:
    using Values = std::vector<float>;

    void add(const std::string& suffix, const TensorNeed& need) {
        if (part_.origins.size() == 1 && part_.origins[0].fold->is_identity())
            return source_->copy(name_of(part_.origins[0], suffix), need.name.text, import_.ready);
        FloatTensor tensor;
        tensor.name = need.name.text;
        tensor.dimensions.assign(need.dimensions.begin(), need.dimensions.begin() + need.rank);
        const uint64_t elements = std::accumulate(tensor.dimensions.begin(), tensor.dimensions.end(),
                                                  uint64_t{1}, std::multiplies<>());
        tensor.values = [source = source_, part = part_, suffix, elements] {
            Values values = made(*source, part, suffix);
            if (values.size() != elements)
                throw Error(Status::internal, "fused tensor %s: expected %llu values, found %zu",
                            suffix.c_str(), static_cast<unsigned long long>(elements), values.size());
            return values;
        };
        import_.tensors.push_back(std::move(tensor));
    }

    static std::string name_of(const PartOrigin& origin, const std::string& suffix) {
        return part_tensor(origin.block, origin.part, suffix.c_str()).text;
    }
    static Values read(const SourceModel& source, const PartOrigin& origin, const std::string& suffix) {
        return source.values(name_of(origin, suffix));
    }

    static Values made(const SourceModel& source, const MergedPart& part, const std::string& suffix) {
        if (suffix == "up.bias" || suffix == "leaf.up.bias" || suffix == "in.bias")
            return input_biases(source, part, suffix, suffix.substr(0, suffix.size() - 4) + "weight",
                                part_flag::up_bias);
        if (suffix == "gate.bias")
            return input_biases(source, part, suffix, "gate.weight", part_flag::gate_bias);
        if (suffix == "node.threshold") return input_biases(source, part, suffix, "node.weight", 0);
        if (suffix == "down.weight") return side_by_side(source, part);
        if (suffix == "down.bias" || suffix == "out.bias") return summed(source, part, suffix);
        if (suffix == "leaf.bias") return leaf_biases(source, part);
        const bool reads_input = suffix != "leaf.down.weight" && suffix != "out.weight";
        Values all;
        for (const PartOrigin& origin : part.origins) {
            Values values = read(source, origin, suffix);
            if (reads_input) origin.fold->scale_rows(values);
            all.insert(all.end(), values.begin(), values.end());
        }
        return all;
    }

    // Biases in front of activations, one behind the other, of the parts that have this flag; and what a
    // norm's offset adds to them. Without a flag it is thresholds, biases with their sign turned.
    static Values input_biases(const SourceModel& source, const MergedPart& part, const std::string& bias,
                               const std::string& weight, uint32_t flag) {
        const bool threshold = flag == 0;
        Values all;
        for (const PartOrigin& origin : part.origins) {
            Values values(rows_of(source, origin, weight), 0.0F);
            if (threshold || origin.spec->has(flag)) values = read(source, origin, bias);
            if (origin.fold->moves()) {
                const auto moved = origin.fold->products(read(source, origin, weight));
                for (size_t i = 0; i < values.size(); ++i)
                    values[i] = static_cast<float>(values[i] + (threshold ? -moved[i] : moved[i]));
            }
            all.insert(all.end(), values.begin(), values.end());
        }
        return all;
    }
    static size_t rows_of(const SourceModel& source, const PartOrigin& origin, const std::string& weight) {
        return source.file().at(name_of(origin, weight)).rows();
    }

    // Down-projections [hidden, width].
    static Values side_by_side(const SourceModel& source, const MergedPart& part) {
        const size_t hidden = source.spec().hidden, all_width = part.spec.width;
        Values all(hidden * all_width);
        size_t start = 0;
        for (const PartOrigin& origin : part.origins) {
            const Values values = read(source, origin, "down.weight");
            const size_t width = origin.spec->width;
            for (size_t o = 0; o < hidden; ++o)
                std::copy_n(values.begin() + static_cast<ptrdiff_t>(o * width), width,
                            all.begin() + static_cast<ptrdiff_t>(o * all_width + start));
            start += width;
        }
        return all;
    }

    static Values summed(const SourceModel& source, const MergedPart& part, const std::string& suffix) {
        std::vector<double> sums(source.spec().hidden);
        for (const PartOrigin& origin : part.origins) {
            if (!origin.spec->has(part_flag::output_bias)) continue;
            const Values values = read(source, origin, suffix);
            for (size_t i = 0; i < sums.size(); ++i)
                sums[i] += values[i];
        }
        return {sums.begin(), sums.end()};
    }

    // One a leaf.
    static Values leaf_biases(const SourceModel& source, const MergedPart& part) {
        Values all;
        for (const PartOrigin& origin : part.origins) {
            Values values(origin.spec->trees * origin.spec->leaves_per_tree() * source.spec().hidden, 0.0F);
            if (origin.spec->has(part_flag::output_bias)) values = read(source, origin, "leaf.bias");
            all.insert(all.end(), values.begin(), values.end());
        }
        return all;
    }

    const std::shared_ptr<const SourceModel>& source_;
    const MergedPart& part_;
    uint32_t block_, number_;
    Import& import_;
};

// uint64: sizes beyond a file's caps are the writer's to refuse, not to wrap.
uint32_t sum_of_sizes(uint32_t a, uint32_t b) {
    const uint64_t sum = uint64_t{a} + b;
    return sum > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(sum);
}

}  // namespace

std::vector<MergedPart> merge_parts(const std::vector<PartOrigin>& origins, const SourceModel& source) {
    std::vector<MergedPart> merged;
    for (const PartOrigin& origin : origins) {
        const bool gated = origin.spec->has(part_flag::gated), dense = origin.spec->kind == PartKind::dense;
        if (origin.fold->moves() && gated && !dense)
            throw Error(Status::unsupported,
                        "%s: layer %u: the bias of its norm cannot be folded into gated trees (their gates "
                        "have no bias of their own)",
                        source.file().source(), origin.block);
        MergedPart* into = nullptr;
        for (MergedPart& part : merged)
            into = into == nullptr && joins(part.spec, *origin.spec) ? &part : into;
        if (into == nullptr) {
            merged.push_back({*origin.spec, {}});
            into = &merged.back();
        } else {
            into->spec.width = sum_of_sizes(into->spec.width, origin.spec->width);
            into->spec.trees = sum_of_sizes(into->spec.trees, origin.spec->trees);
            into->spec.flags |= origin.spec->flags;
        }
        const bool has_neurons = origin.spec->kind != PartKind::leaf_forest || origin.spec->leaf_width > 0;
        if (origin.fold->moves() && has_neurons)
            into->spec.flags |= part_flag::up_bias | (gated ? part_flag::gate_bias : 0);
        into->origins.push_back(origin);
    }
    return merged;
}

void add_merged(const std::shared_ptr<const SourceModel>& source, const MergedPart& part, uint32_t to_block,
                uint32_t to_part, Import& import) {
    Merger(source, part, to_block, to_part, import).run();
}

}  // namespace espalier
