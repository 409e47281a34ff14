#include "apps/machine.h"

#include <sys/utsname.h>

#include <fstream>
#include <thread>

#include "espalier/espalier.h"
#include "espalier_commit.h"
#include "kernels/cpu/isa.h"

namespace espalier {
namespace {

// The first line, without what some files of the kernel end with; "" where there is none.
std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    while (!line.empty() && (line.back() == '\0' || line.back() == ' ' || line.back() == '\r'))
        line.pop_back();
    return line;
}

void put(Json& j, const char* key, std::string value) {
    if (!value.empty()) j[key] = std::move(value);
}

// Of the first processor: "model name : AMD EPYC"; Arm has numbers for implementer and part.
Json processor(const std::string& root) {
    const std::pair<const char*, const char*> wanted[] = {
        {"vendor_id", "vendor"},  {"cpu family", "family"},   {"model", "model"},
        {"model name", "name"},   {"stepping", "stepping"},   {"CPU implementer", "implementer"},
        {"CPU part", "part"},     {"CPU variant", "variant"}, {"CPU revision", "revision"},
        {"Hardware", "hardware"}, {"flags", "features"},      {"Features", "features"}};
    Json j = Json::object();
    std::ifstream file(root + "/proc/cpuinfo");
    for (std::string line; std::getline(file, line) && !(line.empty() && !j.empty());) {
        const size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
        for (const auto& [name, ours] : wanted) {
            if (key == name && colon + 2 < line.size()) j[ours] = line.substr(colon + 2);
        }
    }
    return j;
}

Json clock_of(const std::string& root) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu0/cpufreq/";
    Json j = Json::object();
    for (const char* key :
         {"scaling_driver", "scaling_governor", "cpuinfo_min_freq", "cpuinfo_max_freq", "scaling_cur_freq"})
        put(j, key, first_line(folder + key));
    return j;
}

Json caches(const std::string& root) {
    Json all = Json::array();
    for (int index = 0; index < 8; ++index) {
        const std::string folder = root + "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
        const std::string size = first_line(folder + "/size");
        if (size.empty()) continue;
        all.push_back({{"level", first_line(folder + "/level")},
                       {"type", first_line(folder + "/type")},
                       {"size", size},
                       {"shared_by", first_line(folder + "/shared_cpu_list")}});
    }
    return all;
}

std::string memory_total(const std::string& root) {
    std::ifstream file(root + "/proc/meminfo");
    std::string key, kilobytes;
    while (file >> key >> kilobytes) {
        if (key == "MemTotal:") return kilobytes;
        file.ignore(256, '\n');
    }
    return "";
}

std::string system_name(const std::string& root) {
    std::ifstream file(root + "/etc/os-release");
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with("PRETTY_NAME=")) continue;
        line.erase(0, sizeof("PRETTY_NAME=") - 1);
        std::erase(line, '"');
        return line;
    }
    return "";
}

}  // namespace

Json describe_machine(const std::string& root) {
    Json j{{"processor", processor(root)},
           {"processors", std::thread::hardware_concurrency()},
           {"clock", clock_of(root)},
           {"caches", caches(root)}};
    put(j, "board", first_line(root + "/proc/device-tree/model"));  // "Raspberry Pi 5 Model B Rev 1.0"
    put(j, "load", load_average(root));
    put(j, "system", system_name(root));
    const std::string kilobytes = memory_total(root);
    if (!kilobytes.empty()) j["memory_kb"] = kilobytes;
    utsname name{};
    if (uname(&name) == 0) {
        j["kernel"] = std::string(name.sysname) + " " + name.release;
        j["architecture"] = name.machine;
    }
    return j;
}

std::string load_average(const std::string& root) {
    return first_line(root + "/proc/loadavg");
}

Json describe_build() {
    Json isas = Json::array();
    for (const Isa isa : available_isas())
        isas.push_back(name_of(isa));
    return {{"version", espalier_version()},
            {"commit", ESPALIER_COMMIT},
            {"compiler", __VERSION__},
            {"instruction_sets", std::move(isas)}};
}

}  // namespace espalier
