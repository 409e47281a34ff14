#include "apps/fuse/fuse.h"

#include <algorithm>

#include "apps/fuse/merge.h"
#include "base/error.h"
#include "model_format/schema.h"

namespace espalier {
namespace {

std::string block_prefix(size_t block) {
    return "blocks." + std::to_string(block) + ".";
}

class Fuser {
   public:
    Fuser(const std::shared_ptr<const SourceModel>& source, const FusePlan& plan)
        : source_(source), spec_(source->spec()), plan_(plan), import_(std::make_unique<Import>()) {}

    std::unique_ptr<Import> run() {
        describe();
        const auto blocks = static_cast<uint32_t>(spec_.blocks.size());
        for (uint32_t b = 0; b < blocks;) {
            const auto run = std::find_if(plan_.fused.begin(), plan_.fused.end(),
                                          [&](const BlockRange& range) { return range.first == b; });
            const BlockRange range = run != plan_.fused.end() ? *run : BlockRange{b, b};
            add_block(range);
            b = range.last + 1;
        }
        // Only now are all parts known, and with them the names of their tensors.
        for (size_t b = 0; b < merged_.size(); ++b) {
            for (size_t p = 0; p < merged_[b].size(); ++p)
                add_merged(source_, merged_[b][p], static_cast<uint32_t>(b), static_cast<uint32_t>(p),
                           *import_);
        }
        copy_the_rest();
        return std::move(import_);
    }

   private:
    // The model around its blocks.
    void describe() {
        ModelSpec& spec = import_->spec;
        spec = spec_;
        spec.blocks.clear();
        spec.parts.clear();
        std::string what;
        const auto list = [&](const char* words, const auto& items, const auto& text) {
            for (const auto& item : items)
                what += (&item == &items[0] ? std::string("; ") + words + " " : ", ") + text(item);
        };
        list("no attention in layers", plan_.dropped, [](uint32_t b) { return std::to_string(b); });
        list("feed-forward layers fused:", plan_.fused, range_text);
        list("layers beside each other:", plan_.parallel, range_text);
        spec.origin = import_->keep(std::string(spec_.origin) + what);
    }

    void add_block(const BlockRange& range) {
        BlockSpec block = spec_.blocks[range.first];
        const auto number = static_cast<uint32_t>(import_->spec.blocks.size());
        if (plan_.attends(spec_, range.first)) {
            copy_all(block_prefix(range.first) + "attention.", block_prefix(number) + "attention.");
        } else {
            block = {};
            block.flags = spec_.blocks[range.first].flags & block_flag::parallel;
        }
        for (const BlockRange& beside : plan_.parallel) {
            if (beside.contains(range.first) && range.first > beside.first)
                block.flags |= block_flag::parallel;
        }
        block.first_part = static_cast<uint32_t>(import_->spec.parts.size());
        merged_.push_back(merge_parts(origins_of(range, number), *source_));
        for (const MergedPart& part : merged_.back())
            import_->spec.parts.push_back(part.spec);
        block.part_count = static_cast<uint32_t>(merged_.back().size());
        import_->spec.blocks.push_back(block);
    }

    // All parts of the run, and the norm of block `to` that they read, or in a post-norm model that follows.
    std::vector<PartOrigin> origins_of(const BlockRange& range, uint32_t to) {
        std::vector<uint32_t> with_parts;
        for (uint32_t b = range.first; b <= range.last; ++b) {
            if (spec_.blocks[b].part_count > 0) with_parts.push_back(b);
        }
        if (with_parts.empty()) return {};
        const bool folds = spec_.norm_placement == NormPlacement::pre && with_parts.size() > 1;
        NormValues shared;
        if (folds) shared = shared_norm(*source_, with_parts);
        add_norm(with_parts.back(), shared, to);
        std::vector<PartOrigin> origins;
        for (const uint32_t b : with_parts) {
            auto fold = std::make_shared<Fold>();
            if (folds) *fold = fold_of(norm_values(*source_, b), shared);
            const auto parts = spec_.parts_of(spec_.blocks[b]);
            for (uint32_t p = 0; p < parts.size(); ++p)
                origins.push_back({b, p, &parts[p], fold});
        }
        return origins;
    }

    // The norm of block `from`, unless the shared one is another.
    void add_norm(uint32_t from, const NormValues& shared, uint32_t to) {
        const std::string target = block_prefix(to) + "ffn.norm.";
        if (shared.weight.empty() || shared.weight == norm_values(*source_, from).weight)
            return copy_all(block_prefix(from) + "ffn.norm.", target);
        const auto add = [&](const std::string& name, const std::vector<float>& values) {
            import_->tensors.push_back({target + name, {values.size()}, [values] { return values; }});
        };
        add("weight", shared.weight);
        if (source_->file().find(block_prefix(from) + "ffn.norm.bias") != nullptr) add("bias", shared.bias);
    }

    void copy_all(const std::string& from, const std::string& to) {
        for (const TensorView& tensor : source_->file().tensors()) {
            if (tensor.name.starts_with(from) && !tensor.name.ends_with(".scale"))
                source_->copy(std::string(tensor.name), to + std::string(tensor.name.substr(from.size())),
                              import_->ready);
        }
    }

    void copy_the_rest() {
        for (const TensorView& tensor : source_->file().tensors()) {
            if (!tensor.name.starts_with("blocks.") && !tensor.name.ends_with(".scale"))
                source_->copy(std::string(tensor.name), std::string(tensor.name), import_->ready);
        }
    }

    const std::shared_ptr<const SourceModel>& source_;
    const ModelSpec& spec_;
    const FusePlan& plan_;
    std::unique_ptr<Import> import_;
    std::vector<std::vector<MergedPart>> merged_;
};

}  // namespace

std::unique_ptr<Import> fuse_model(const std::shared_ptr<const SourceModel>& source, const FusePlan& plan) {
    return Fuser(source, plan).run();
}

std::vector<TensorSource> store_fused(Import& import, const SourceModel& source) {
    return store(import, source.precision());
}

}  // namespace espalier
