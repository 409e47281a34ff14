// Energy that the machine itself counts or tells: RAPL (powercap), and sensors of hwmon.
#pragma once

#include <string>
#include <vector>

#include "apps/describe.h"

namespace espalier {

// Counters of microjoules. Sensors that tell watts alone are listed, not integrated: how often they are
// renewed is not known.
class EnergyCounters {
   public:
    explicit EnergyCounters(const std::string& root = "");  // of tests

    // The sources, or why there is none: counters are often for root alone.
    Json describe() const;
    bool any() const { return !counters_.empty(); }

    void start();
    // Joules by source since start; a counter that went round once is put right.
    Json joules_since_start() const;

   private:
    struct Counter {
        std::string name, path;
        uint64_t range = 0;  // where it begins again; 0: not told
        uint64_t at_start = 0;
    };
    std::vector<Counter> counters_;
    std::vector<std::string> unreadable_, watts_;
};

}  // namespace espalier
