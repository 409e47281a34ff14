// What bench --report says of a machine and of the energy that it counts, from files of made-up machines, and
// what of its options is refused. (The report itself takes minutes.)
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>

#include "apps/energy.h"
#include "apps/machine.h"
#include "tests/command/process.h"
#include "tests/temporary_folder.h"

namespace espalier::test {
namespace {

void put(const TemporaryFolder& folder, const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder.path(name);
    std::filesystem::create_directories(path.parent_path());
    write_file(path.string(), text);
}

}  // namespace

TEST_CASE("a machine is described by what its files say, and by no more") {
    const TemporaryFolder folder;
    put(folder, "proc/cpuinfo",
        "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\n"
        "CPU part\t: 0xd0b\n\nprocessor\t: 1\nCPU part\t: 0xfff\n");
    put(folder, "proc/device-tree/model", std::string("Raspberry Pi 5 Model B Rev 1.0\0", 31));
    put(folder, "proc/meminfo", "MemTotal:        8245672 kB\nMemFree: 1 kB\n");
    put(folder, "etc/os-release", "NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
    put(folder, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n");
    put(folder, "sys/devices/system/cpu/cpu0/cache/index0/level", "1\n");
    put(folder, "sys/devices/system/cpu/cpu0/cache/index0/size", "64K\n");
    const Json j = describe_machine(folder.path(""));
    CHECK(j["processor"]["part"] == "0xd0b");  // the first processor's
    CHECK(j["processor"]["features"] == "fp asimd asimddp");
    CHECK(!j["processor"].contains("name"));
    CHECK(j["board"] == "Raspberry Pi 5 Model B Rev 1.0");
    CHECK(j["memory_kb"] == "8245672");
    CHECK(j["system"] == "Debian GNU/Linux 12 (bookworm)");
    CHECK(j["clock"]["scaling_governor"] == "ondemand");
    CHECK(j["caches"].size() == 1);
    CHECK(!j.contains("load"));
    const Json nothing = describe_machine(folder.path("none"));
    CHECK(nothing["processor"].empty());
    CHECK(!nothing.contains("memory_kb"));
}

TEST_CASE("energy: counters, one that goes round, sensors of watts alone, none") {
    const TemporaryFolder folder;
    const std::string zone = "sys/class/powercap/intel-rapl:0/", sensor = "sys/class/hwmon/hwmon0/";
    put(folder, zone + "name", "package-0\n");
    put(folder, zone + "energy_uj", "9000000\n");
    put(folder, zone + "max_energy_range_uj", "10000000\n");
    put(folder, "sys/class/powercap/intel-rapl/enabled", "1\n");
    put(folder, sensor + "name", "ina3221\n");
    put(folder, sensor + "power1_input", "2500000\n");
    put(folder, sensor + "energy1_input", "500000\n");
    EnergyCounters energy(folder.path(""));
    CHECK(energy.any());
    const Json said = energy.describe();
    CHECK(said["counted"] == Json{"package-0 (intel-rapl:0)", "ina3221 energy1_input"});
    CHECK(said["watts_only"] == Json{"ina3221 power1_input"});
    CHECK(!said.contains("absent"));
    energy.start();
    put(folder, zone + "energy_uj", "2000000\n");
    put(folder, sensor + "energy1_input", "750000\n");
    const Json used = energy.joules_since_start();
    CHECK(used["package-0 (intel-rapl:0)"].get<double>() == doctest::Approx(3));
    CHECK(used["ina3221 energy1_input"].get<double>() == doctest::Approx(0.25));

    const EnergyCounters none(folder.path("none"));
    CHECK(!none.any());
    CHECK(none.describe().contains("absent"));
}

// The script that each build runs, on checkouts made here.
TEST_CASE("the commit that a build names") {
    const TemporaryFolder folder;
    const std::string source = folder.path("source"), header = folder.path("commit.h");
    const auto run = [](const std::string& command) {
        const int status = std::system((command + " >/dev/null 2>&1").c_str());
        return status == 0;
    };
    if (!run("git --version") || !run("cmake --version")) {
        MESSAGE("no git or no cmake here: not tested");
        return;
    }
    const auto git = [&](const std::string& words) {
        REQUIRE(run("git -C " + source + " -c user.name=n -c user.email=e " + words));
    };
    const auto said = [&] {
        REQUIRE(run("cmake -DSOURCE=" + source + " -DHEADER=" + header +
                    " -P " ESPALIER_SOURCE_DIR "/cmake/EspalierCommit.cmake"));
        const std::string text = read_file(header);
        const size_t begin = text.find('"') + 1;
        return text.substr(begin, text.rfind('"') - begin);
    };
    put(folder, "source/file", "1");
    CHECK(said() == "unknown");
    git("init");
    git("add file");
    git("commit -m one");
    const std::string first = said();
    CHECK(first.size() == 40);
    CHECK(first.find_first_not_of("0123456789abcdef") == std::string::npos);
    const auto written = std::filesystem::last_write_time(header);
    CHECK(said() == first);
    CHECK(std::filesystem::last_write_time(header) == written);
    put(folder, "source/file", "2");
    CHECK(said() == first + "-dirty");
    git("commit -a -m two");
    CHECK(said().size() == 40);
    CHECK(said() != first);
    CHECK(describe_build()["commit"].get<std::string>().size() >= 7);  // "unknown" at least
}

TEST_CASE("bench --report: wrong usage") {
    check_usage(espalier({"bench"}));
    check_usage(espalier({"bench", "--model", "a.esp"}));
    check_usage(espalier({"bench", "--report", "r.json", "layer", "--ffn", "none"}));
    check_refused(espalier({"bench", "--report", "r.json", "--model", "nowhere.esp"}), {"nowhere.esp"});
}

}  // namespace espalier::test
