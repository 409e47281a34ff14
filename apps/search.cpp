#include "apps/search.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apps/lines.h"
#include "apps/progress.h"
#include "apps/runner.h"
#include "base/error.h"
#include "model_format/hash.h"

namespace espalier {
namespace {

// Lines that are embedded, and written, together; and tokens of a packed batch.
constexpr size_t lines_a_step = 1024;
constexpr uint32_t tokens_a_batch = 4096, sequences_a_batch = 256;

std::string read_if_there(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Complete rows that a stopped run of the same work left; what follows them is cut off.
size_t rows_left(const std::string& part, const std::string& label, const std::string& header,
                 size_t row_bytes) {
    if (read_if_there(part + ".json") != label || !std::filesystem::exists(part)) return 0;
    const uint64_t size = std::filesystem::file_size(part);
    std::ifstream file(part, std::ios::binary);
    std::string found(header.size(), 0);
    if (size < header.size() || !file.read(found.data(), static_cast<std::streamsize>(found.size())) ||
        found != header)
        return 0;
    const size_t rows = (size - header.size()) / row_bytes;
    std::filesystem::resize_file(part, header.size() + rows * row_bytes);
    return rows;
}

class Appended {
   public:
    Appended(const std::string& path, bool anew)
        : path_(path), file_(path, std::ios::binary | (anew ? std::ios::trunc : std::ios::app)) {
        check();
    }
    void append(const void* data, size_t bytes) {
        file_.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
        file_.flush();
        check();
    }

   private:
    void check() const {
        if (!file_) throw Error(Status::io, "%s: cannot write", path_.c_str());
    }
    std::string path_;
    std::ofstream file_;
};

// [lines, hidden]
std::vector<float> embedded(Context& context, std::span<const std::string_view> lines) {
    const size_t hidden = context.model().spec().hidden;
    TokenizedTexts texts;
    for (const std::string_view line : lines)
        texts.add(context.tokenize(line, std::nullopt));
    std::vector<float> vectors(lines.size() * hidden);
    for_each_batch(context, texts, true, [&](const Batch& batch, std::span<const uint32_t> members) {
        const auto values = context.embed(batch);
        for (size_t i = 0; i < members.size(); ++i)
            std::copy_n(values.begin() + static_cast<ptrdiff_t>(i * hidden), hidden,
                        vectors.begin() + static_cast<ptrdiff_t>(members[i] * hidden));
    });
    return vectors;
}

}  // namespace

std::vector<std::string_view> lines_of(std::string_view text) {
    std::vector<std::string_view> lines;
    for (size_t begin = 0; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        std::string_view line = text.substr(begin, end - begin);
        if (line.ends_with('\r')) line.remove_suffix(1);
        lines.push_back(line);
        begin = end + 1;
    }
    return lines;
}

Json index_label(const Model& model, std::string_view text, size_t lines) {
    char model_hash[17], text_hash[17];
    std::snprintf(model_hash, sizeof(model_hash), "%016llx",
                  static_cast<unsigned long long>(model.file().payload_hash()));
    std::snprintf(text_hash, sizeof(text_hash), "%016llx",
                  static_cast<unsigned long long>(hash_bytes(std::as_bytes(std::span(text)))));
    return {{"model", model_hash},
            {"precision", precision_name(model.precision())},
            {"text", text_hash},
            {"lines", lines}};
}

Indexed write_index(const Model& model, std::string_view text, const std::string& path, int threads) {
    const auto lines = lines_of(text);
    const std::string label = index_label(model, text, lines.size()).dump() + "\n", part = path + ".part",
                      header = npy_header(lines.size(), model.spec().hidden);
    ContextOptions options;
    options.threads = threads;
    options.max_tokens = std::max(tokens_a_batch, model.spec().tokenizer.max_tokens);
    options.max_sequences = sequences_a_batch;
    Context context(model, options);
    const size_t row_bytes = model.spec().hidden * sizeof(float),
                 before = rows_left(part, label, header, row_bytes);
    if (before == 0) {
        write_text(part + ".json", label);
        Appended(part, true).append(header.data(), header.size());
    }
    {
        Appended out(part, false);
        Progress progress("indexing (lines)", lines.size() - before);
        for (size_t first = before; first < lines.size(); first += lines_a_step) {
            const size_t count = std::min(lines_a_step, lines.size() - first);
            const auto vectors = embedded(context, std::span(lines).subspan(first, count));
            out.append(vectors.data(), count * row_bytes);
            progress.advance(count);
        }
    }
    std::filesystem::rename(part + ".json", path + ".json");
    std::filesystem::rename(part, path);
    return {lines.size(), before};
}

std::vector<Hit> nearest(const Matrix& index, std::span<const float> vector, size_t k) {
    const auto product = [&](const float* a, const float* b) {
        float sum[8] = {};  // of every eighth value, so that the compiler may use vectors
        size_t i = 0;
        for (; i + 8 <= vector.size(); i += 8) {
            for (size_t lane = 0; lane < 8; ++lane)
                sum[lane] += a[i + lane] * b[i + lane];
        }
        for (; i < vector.size(); ++i)
            sum[0] += a[i] * b[i];
        return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
    };
    const float length = std::sqrt(product(vector.data(), vector.data()));
    std::vector<Hit> hits(index.rows);
    for (uint64_t i = 0; i < index.rows; ++i) {
        const float lengths = length * std::sqrt(product(index.row(i), index.row(i)));
        hits[i] = {i, lengths > 0 ? product(index.row(i), vector.data()) / lengths : 0};
    }
    const size_t wanted = std::min<size_t>(k, hits.size());
    std::partial_sort(hits.begin(), hits.begin() + static_cast<ptrdiff_t>(wanted), hits.end(),
                      [](const Hit& a, const Hit& b) {
                          return a.cosine != b.cosine ? a.cosine > b.cosine : a.line < b.line;
                      });
    hits.resize(wanted);
    return hits;
}

}  // namespace espalier
