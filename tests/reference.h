// A BERT encoder in plain double precision, straight from the checkpoint's tensors under their Hugging Face
// names: post-norm, erf GELU, learned positions; the mean over tokens, of length 1. Slow and obvious.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace espalier::test {

struct ReferenceBert {
    using Row = std::vector<double>;
    using Rows = std::vector<Row>;

    std::map<std::string, std::vector<float>> tensors;
    size_t hidden = 0, heads = 0, layers = 0, width = 0;
    double epsilon = 1e-12;

    // y = W x + b, W [outputs, inputs].
    Row linear(const std::string& name, const Row& x) const {
        const auto &weight = tensors.at(name + ".weight"), &bias = tensors.at(name + ".bias");
        Row y(bias.begin(), bias.end());
        for (size_t o = 0; o < y.size(); ++o) {
            for (size_t i = 0; i < x.size(); ++i)
                y[o] += static_cast<double>(weight[o * x.size() + i]) * x[i];
        }
        return y;
    }

    Row norm(const std::string& name, Row x) const {
        double mean = 0, variance = 0;
        for (const double v : x)
            mean += v / static_cast<double>(x.size());
        for (const double v : x)
            variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
        const auto &weight = tensors.at(name + ".weight"), &bias = tensors.at(name + ".bias");
        for (size_t i = 0; i < x.size(); ++i)
            x[i] = (x[i] - mean) / std::sqrt(variance + epsilon) * weight[i] + bias[i];
        return x;
    }

    static Row sum(Row a, const Row& b) {
        for (size_t i = 0; i < a.size(); ++i)
            a[i] += b[i];
        return a;
    }

    Row table(const std::string& name, size_t row) const {
        const auto first = tensors.at(name).begin() + static_cast<std::ptrdiff_t>(row * hidden);
        return {first, first + static_cast<std::ptrdiff_t>(hidden)};
    }

    Rows attention(const std::string& name, const Rows& x) const {
        Rows q, k, v, mixed(x.size(), Row(hidden, 0.0));
        for (const Row& row : x) {
            q.push_back(linear(name + "query", row));
            k.push_back(linear(name + "key", row));
            v.push_back(linear(name + "value", row));
        }
        const size_t d = hidden / heads;
        for (size_t t = 0; t < x.size(); ++t) {
            for (size_t h = 0; h < heads; ++h) {
                Row score(x.size(), 0.0);
                double total = 0;
                for (size_t s = 0; s < x.size(); ++s) {
                    for (size_t i = h * d; i < (h + 1) * d; ++i)
                        score[s] += q[t][i] * k[s][i];
                    total += score[s] = std::exp(score[s] / std::sqrt(static_cast<double>(d)));
                }
                for (size_t s = 0; s < x.size(); ++s) {
                    for (size_t i = h * d; i < (h + 1) * d; ++i)
                        mixed[t][i] += score[s] / total * v[s][i];
                }
            }
        }
        return mixed;
    }

    Row embed(const std::vector<int>& ids, const std::vector<int>& types) const {
        Rows x;
        for (size_t t = 0; t < ids.size(); ++t) {
            const auto place = [&](const char* which, size_t row) {
                return table(std::string("embeddings.") + which + "_embeddings.weight", row);
            };
            const Row row = sum(sum(place("word", static_cast<size_t>(ids[t])), place("position", t)),
                                place("token_type", static_cast<size_t>(types[t])));
            x.push_back(norm("embeddings.LayerNorm", row));
        }
        for (size_t layer = 0; layer < layers; ++layer) {
            const std::string name = "encoder.layer." + std::to_string(layer) + ".";
            const Rows mixed = attention(name + "attention.self.", x);
            for (size_t t = 0; t < x.size(); ++t) {
                x[t] = norm(name + "attention.output.LayerNorm",
                            sum(linear(name + "attention.output.dense", mixed[t]), x[t]));
                Row inner = linear(name + "intermediate.dense", x[t]);
                for (double& z : inner)
                    z = 0.5 * z * (1 + std::erf(z / std::sqrt(2.0)));
                x[t] = norm(name + "output.LayerNorm", sum(linear(name + "output.dense", inner), x[t]));
            }
        }
        Row mean(hidden, 0.0);
        for (const Row& row : x)
            mean = sum(mean, row);
        double squares = 0;
        for (const double v : mean)
            squares += v * v;
        for (double& v : mean)
            v /= std::sqrt(squares);
        return mean;
    }
};

}  // namespace espalier::test
