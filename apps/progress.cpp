#include "apps/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace espalier {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr std::size_t kWidestBar = 30, kNarrowestBar = 8;

std::string format(const char* pattern, double value) {
    char text[48];
    std::snprintf(text, sizeof(text), pattern, value);
    return text;
}

std::string rate_text(double rate) {
    if (rate >= 1e8) return format("%.0fM/s", rate / 1e6);
    if (rate >= 1e6) return format("%.1fM/s", rate / 1e6);
    if (rate >= 1e4) return format("%.1fk/s", rate / 1e3);
    return format(rate >= 100.0 ? "%.0f/s" : rate >= 1.0 ? "%.1f/s" : "%.2f/s", rate);
}

std::string time_text(double seconds) {
    const auto whole = static_cast<unsigned long long>(std::clamp(std::round(seconds), 0.0, 3.6e9));
    char text[48];
    if (whole >= 3600) {
        std::snprintf(text, sizeof(text), "%llu:%02llu:%02llu", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        std::snprintf(text, sizeof(text), "%llu:%02llu", whole / 60, whole % 60);
    }
    return text;
}

// One column less than there is: some terminals wrap as soon as the last one is filled.
std::size_t terminal_columns() {
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return 79;
    return size.ws_col - 1u;
}

}  // namespace

std::string render_progress(std::string_view name, std::uint64_t done, std::uint64_t total, double seconds,
                            std::size_t columns) {
    const bool known = total > 0;
    if (known) done = std::min(done, total);
    const double rate = seconds > 0.0 ? static_cast<double>(done) / seconds : 0.0;
    const double share = known ? static_cast<double>(done) / static_cast<double>(total) : 0.0;

    std::string line(name);
    std::string rest;
    if (known) {
        rest += format(" %3.0f%%", std::floor(share * 100.0));
        rest += " " + std::to_string(done) + "/" + std::to_string(total);
    } else {
        rest += " " + std::to_string(done);
    }
    rest += " " + rate_text(rate);
    if (!known) {
        rest += " " + time_text(seconds);
    } else if (rate > 0.0) {
        rest += " ETA " + time_text(static_cast<double>(total - done) / rate);
    }

    const std::size_t used = line.size() + rest.size() + 3;  // a space and two brackets
    if (known && columns >= used + kNarrowestBar) {
        const std::size_t width = std::min(columns - used, kWidestBar);
        const auto full = static_cast<std::size_t>(share * static_cast<double>(width));
        line += " [" + std::string(full, '#') + std::string(width - full, '-') + "]";
    }
    line += rest;
    return line.substr(0, columns);
}

Progress::Progress(std::string name, std::uint64_t total)
    : name_(std::move(name)),
      total_(total),
      active_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      next_draw_(start_ + kRedraw) {}

void Progress::advance(std::uint64_t steps) {
    done_ += steps;
    if (!active_) return;
    const Clock::time_point now = Clock::now();
    if (now < next_draw_) return;
    next_draw_ = now + kRedraw;
    draw(now);
}

// Wipes with spaces, not escape sequences: any terminal takes them.
void Progress::draw(Clock::time_point now) {
    const double seconds = std::chrono::duration<double>(now - start_).count();
    std::string line = render_progress(name_, done_, total_, seconds, terminal_columns());
    const std::size_t shown = line.size();
    if (shown < drawn_) line.append(drawn_ - shown, ' ');
    drawn_ = shown;
    std::fprintf(stderr, "\r%s", line.c_str());
    std::fflush(stderr);
}

void Progress::finish() {
    if (active_ && drawn_ > 0) {
        std::fprintf(stderr, "\r%s\r", std::string(drawn_, ' ').c_str());
        std::fflush(stderr);
    }
    active_ = false;
}

}  // namespace espalier
