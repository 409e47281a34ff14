// bench layer for people: a table of one result.
#include <cstdio>

#include "apps/bench_layer.h"

namespace espalier {
namespace {

double number(const Json& j, const std::string& key) {
    return j.contains(key) && j[key].is_number() ? j[key].get<double>() : 0;
}

// A dash where nothing was measured.
std::string cell(double value, const char* pattern) {
    if (value == 0) return "-";
    char text[32];
    std::snprintf(text, sizeof(text), pattern, value);
    return text;
}

void print_row(const Json& j, const std::string& label, const std::string& key) {
    const double us = number(j, key + "_us");
    std::printf("%-26s %12.2f %12.2f %12s %10.1f %10.1f %9.2fx\n", label.c_str(), us,
                number(j, key + "_p99_us"), cell(number(j, key + "_cold_us"), "%.2f").c_str(),
                number(j, key + "_ns_per_token"), number(j, key + "_gflops"), us / number(j, "forest_us"));
}

}  // namespace

void print_layer(const Json& j) {
    const auto text = [&](const char* key) { return j[key].get<std::string>(); };
    std::printf("hidden %zu, batch %zu, %s, %d thread%s, %s, %s routing\n", j["hidden"].get<size_t>(),
                j["batch"].get<size_t>(), text("precision").c_str(), j["threads"].get<int>(),
                j["threads"].get<int>() == 1 ? "" : "s", text("isa").c_str(), text("routing").c_str());
    if (!j["supported"].get<bool>()) {
        std::printf("%s\n", text("reason").c_str());
        return;
    }
    std::printf("%-26s %12s %12s %12s %10s %10s %10s\n", "layer", "median us", "p99 us", "cold us",
                "ns/token", "GFLOP/s", "to trees");
    print_row(j, text("ffn"), "forest");
    if (j.contains("dense_us")) print_row(j, text("against"), "dense");
    if (j.contains("dense_bound_us"))
        std::printf("%-26s %12.2f %60.2fx\n", "dense, at the least", number(j, "dense_bound_us"),
                    number(j, "ratio_to_bound"));
    if (j.contains("equal_flops_us"))
        print_row(j, "dense:" + std::to_string(j["equal_flops_width"].get<size_t>()) + ", equal FLOPs",
                  "equal_flops");
    std::printf("%-26s %12d\n", "none", 0);
    std::printf("bound of the trees %.2f us by %s, %.0f %% of it reached; %.1f times fewer multiply-adds\n",
                number(j, "bound_us"), text("bound_by").c_str(), 100 * number(j, "bound_fraction"),
                number(j, "flop_ratio"));
    const Json &r = j["roofline"], &v = j["verified"];
    std::printf("machine: %s GFLOP/s, third-level cache %.0f GB/s, memory %.0f GB/s\n",
                cell(number(r, "gflops"), "%.0f").c_str(), number(r, "third_level_gb_per_s"),
                number(r, "memory_gb_per_s"));
    std::printf("distinct leaves of a call %zu; %zu weight rows, %.2f MB touched\n",
                j["distinct_leaves"].get<size_t>(), j["touched_rows"].get<size_t>(),
                1e-6 * number(j, "touched_bytes"));
    std::printf(
        "trees: %s; %zu tokens checked against the scalar kernels: equal leaves %.3f %%, largest difference "
        "%.2g of the rms\n",
        text("forest_kernels").c_str(), v["tokens"].get<size_t>(), 100 * number(v, "equal_leaves"),
        number(v, "max_difference"));
    if (!j.contains("dense_us")) return;
    const Json &kernels = j["dense_kernels"], &checked = j["dense_verified"];
    std::printf(
        "dense: %s up, %s down, %zu rows at once, %.0f %% of the peak; cosine %.6f to double precision\n",
        kernels["up"].get<std::string>().c_str(), kernels["down"].get<std::string>().c_str(),
        kernels["rows_at_once"].get<size_t>(), 100 * number(j, "dense_peak_fraction"),
        number(checked, "cosine"));
}

}  // namespace espalier
