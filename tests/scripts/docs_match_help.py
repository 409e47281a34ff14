#!/usr/bin/env python3
"""Every option that README.md and docs/ show of a command is one that the command has.

    docs_match_help.py ESPALIER FILE...

Looked at: what stands between backticks or in a line of a code block and begins with `espalier COMMAND` (any path
in front) or, in a table's first column, with a command's name.
"""
import re
import subprocess
import sys


def help_of(program, words):
    text = subprocess.run([program, *words, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)), text


def pieces(path):
    """Line numbers and code of a Markdown file."""
    block = False
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        if line.startswith("```"):
            block = not block
        elif block:
            yield number, line.split("#")[0]
        else:
            for code in re.findall(r"`([^`]+)`", line):
                yield number, code if not line.startswith("| `" + code) else "espalier " + code


def main():
    program, *files = sys.argv[1:]
    _, top = help_of(program, [])
    commands = set(re.findall(r"^  ([a-z]+) ", top.split("Subcommands:")[1], re.M))
    known, looked_at, wrong = {}, 0, 0
    for path in files:
        for number, code in pieces(path):
            for use in re.findall(r"(?:^|[\s/])espalier ([^|&;\n]*(?:\\?\|[^|&;\n]*)*)", code):
                words = use.split()
                if not words or words[0] not in commands:
                    continue
                names = words[:2] if words[0] == "bench" and len(words) > 1 and words[1].isalpha() else words[:1]
                key = " ".join(names)
                if key not in known:
                    known[key], _ = help_of(program, names)
                for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", use):
                    looked_at += 1
                    if option not in known[key] | {"--help"}:
                        print(f"{path}:{number}: espalier {key} has no {option}")
                        wrong += 1
    print(f"{looked_at} options in {len(files)} files, {wrong} unknown")
    return 1 if wrong or looked_at == 0 else 0


sys.exit(main())
