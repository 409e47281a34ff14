// Runs the espalier command as a shell would: arguments, input and environment in; exit status, stdout and
// stderr out.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "tests/temporary_folder.h"

extern char** environ;

namespace espalier::test {

struct Outcome {
    int status = -1;  // 128 + the signal's number where one ended it
    std::string out, err;

    std::vector<std::string> lines() const {
        std::vector<std::string> list;
        for (size_t from = 0; from < out.size();) {
            const size_t end = std::min(out.find('\n', from), out.size());
            list.push_back(out.substr(from, end - from));
            from = end + 1;
        }
        return list;
    }
};

// `variables`: NAME=VALUE, in front of the test's own environment. ESPALIER_ISA is taken out of the latter.
inline Outcome espalier(const std::vector<std::string>& arguments, const std::string& input = "",
                        const std::vector<std::string>& variables = {}) {
    const TemporaryFolder folder;
    write_file(folder.path("in"), input);
#if defined(ESPALIER_EMULATOR)
    const char* program = ESPALIER_EMULATOR;
    std::vector<char*> argv{const_cast<char*>(program), const_cast<char*>(ESPALIER_COMMAND)}, environment;
#else
    const char* program = ESPALIER_COMMAND;
    std::vector<char*> argv{const_cast<char*>("espalier")}, environment;
#endif
    for (const std::string& argument : arguments)
        argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    for (const std::string& variable : variables)
        environment.push_back(const_cast<char*>(variable.c_str()));
    for (char** each = environ; *each != nullptr; ++each) {
        if (!std::string_view(*each).starts_with("ESPALIER_")) environment.push_back(*each);
    }
    environment.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const std::string in = folder.path("in"), out = folder.path("out"), err = folder.path("err");
    posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
    pid_t child = 0;
    const int failed = posix_spawn(&child, program, &actions, nullptr, argv.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (failed != 0) throw std::runtime_error("cannot start " ESPALIER_COMMAND);
    int status = 0;
    waitpid(child, &status, 0);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {code, read_file(out), read_file(err)};
}

inline bool holds(const std::string& text, const std::string& words) {
    return text.find(words) != std::string::npos;
}

// The contract of a bad model or input: exit 1, nothing on stdout, one line on stderr that says what.
inline void check_refused(const Outcome& outcome, const std::vector<std::string>& words) {
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(outcome.out == "");
    CHECK(outcome.err.starts_with("espalier: "));
    CHECK(outcome.err.find('\n') == outcome.err.size() - 1);
    for (const std::string& word : words) {
        CAPTURE(word);
        CHECK(holds(outcome.err, word));
    }
}

// Wrong usage: exit 2, nothing on stdout.
inline void check_usage(const Outcome& outcome) {
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 2);
    CHECK(outcome.out == "");
    CHECK(outcome.err != "");
}

inline Outcome check_good(Outcome outcome) {
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 0);
    return outcome;
}

}  // namespace espalier::test
