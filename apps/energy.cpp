#include "apps/energy.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

namespace espalier {
namespace {

namespace fs = std::filesystem;

std::optional<uint64_t> number_in(const std::string& path) {
    uint64_t value = 0;
    std::ifstream file(path);
    if (file >> value) return value;
    return std::nullopt;
}

std::string word_in(const std::string& path, const std::string& otherwise) {
    std::string word;
    std::ifstream(path) >> word;
    return word.empty() ? otherwise : word;
}

std::vector<fs::path> entries(const std::string& folder) {
    std::vector<fs::path> all;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none))
        all.push_back(entry.path());
    std::sort(all.begin(), all.end());
    return all;
}

bool is_input(const std::string& name, const char* of) {
    return name.starts_with(of) && name.ends_with("_input");
}

}  // namespace

EnergyCounters::EnergyCounters(const std::string& root) {
    const auto add = [&](std::string name, const std::string& path, uint64_t range) {
        if (number_in(path)) {
            counters_.push_back({std::move(name), path, range});
        } else {
            unreadable_.push_back(path);
        }
    };
    // Packages, and the zones in them (intel-rapl:0, intel-rapl:0:0); AMD's processors are there as well.
    for (const fs::path& zone : entries(root + "/sys/class/powercap")) {
        const std::string folder = zone.string(), path = folder + "/energy_uj";
        std::error_code none;
        if (!fs::exists(path, none)) continue;
        add(word_in(folder + "/name", zone.filename()) + " (" + zone.filename().string() + ")", path,
            number_in(folder + "/max_energy_range_uj").value_or(0));
    }
    for (const fs::path& chip : entries(root + "/sys/class/hwmon")) {
        const std::string name = word_in((chip / "name").string(), chip.filename());
        for (const fs::path& file : entries(chip.string())) {
            const std::string sensor = file.filename();
            std::string both = name;
            both.append(" ").append(sensor);
            if (is_input(sensor, "energy")) add(both, file.string(), 0);
            if (is_input(sensor, "power")) watts_.push_back(both);
        }
    }
}

Json EnergyCounters::describe() const {
    Json j{{"counted", Json::array()}};
    for (const Counter& counter : counters_)
        j["counted"].push_back(counter.name);
    if (!watts_.empty()) j["watts_only"] = watts_;
    if (!unreadable_.empty()) j["not_readable"] = unreadable_;
    if (counters_.empty())
        j["absent"] = unreadable_.empty() ? "this machine exposes no counter of energy (RAPL, hwmon)"
                                          : "the counters of energy may not be read by this user";
    return j;
}

void EnergyCounters::start() {
    for (Counter& counter : counters_)
        counter.at_start = number_in(counter.path).value_or(0);
}

Json EnergyCounters::joules_since_start() const {
    Json j = Json::object();
    for (const Counter& counter : counters_) {
        const auto now = number_in(counter.path);
        if (!now || (*now < counter.at_start && counter.range == 0)) continue;
        const uint64_t used =
            *now >= counter.at_start ? *now - counter.at_start : counter.range - counter.at_start + *now;
        j[counter.name] = static_cast<double>(used) * 1e-6;
    }
    return j;
}

}  // namespace espalier
