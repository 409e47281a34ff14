// A progress bar on stderr: drawn only when stderr is a terminal, at most ten times a second, wiped at the
// end. One thread at a time; the caller writes nothing else to the terminal in between.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

class Progress {
   public:
    // total: how many steps there will be; 0 when that is unknown (no bar and no ETA then).
    Progress(std::string name, std::uint64_t total);
    ~Progress() { finish(); }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    void advance(std::uint64_t steps = 1);

    // Wipes the bar; later calls do nothing.
    void finish();

   private:
    using Clock = std::chrono::steady_clock;
    void draw(Clock::time_point now);

    std::string name_;
    std::uint64_t total_;
    std::uint64_t done_ = 0;
    bool active_;
    std::size_t drawn_ = 0;  // characters now on the terminal's line
    Clock::time_point start_, next_draw_;
};

// The line that is drawn, at most `columns` characters: name, bar, share, count, rate, ETA. What finds no
// room is left out, the bar first.
std::string render_progress(std::string_view name, std::uint64_t done, std::uint64_t total, double seconds,
                            std::size_t columns);

}  // namespace espalier
