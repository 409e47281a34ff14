#!/usr/bin/env python3
"""Runs every shell command of the documentation's task pages, as a reader would type them.

    docs_commands.py PAGE.md...

A page's blocks marked ```sh run in order, in one shell that stops at the first failure, in a copy of the checkout's
tracked files with its build/ and its Python environments beside them. A block that cannot be run here has a line in
front of it that says why:

    <!-- not run: why, and what runs it instead -->

At most one block in three may have one, and the reason must be a sentence.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BESIDE = ["build", ".venv-python", ".venv-training"]


def blocks(page):
    """(first line's number, reason for not running it or None, commands)"""
    found = re.finditer(r"^(?:<!-- not run: (.*?) -->\n)?```(sh|bash|shell|console)\n(.*?)^```$",
                        page.read_text(encoding="utf-8"), re.M | re.S)  # fmt: skip
    text = page.read_text(encoding="utf-8")
    return [(text[: block.start(3)].count("\n") + 1, block[1], block[3]) for block in found]


def copy_to(folder):
    names = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in BESIDE:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)


def run(page, commands):
    """The page's commands, each block behind a line that names it; what they said, where one failed."""
    script = ["set -euo pipefail", 'PATH="$PWD/.venv-python/bin:$PATH"']
    for number, block in commands:
        script += [f"echo '== {page.name}:{number}'", block]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        copy_to(folder)
        done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    return None if done.returncode == 0 else done.stdout


def main():
    pages = [pathlib.Path(name) for name in sys.argv[1:]]
    wrong = ran = left_out = 0
    for page in pages:
        commands = []
        if page.read_text(encoding="utf-8").count("<!-- not run:") != sum(r is not None for _, r, _ in blocks(page)):
            print(f"{page}: a mark that stands in front of no block")
            wrong += 1
        for number, reason, block in blocks(page):
            if reason is None:
                commands.append((number, block))
            elif len(reason.split()) < 5:
                print(f"{page}:{number}: a reason for not running it: expected a sentence, found {reason!r}")
                wrong += 1
            else:
                print(f"{page}:{number}: not run: {reason}")
                left_out += 1
        if not commands:
            print(f"{page}: expected a block that is run, found none")
            wrong += 1
        elif said := run(page, commands):
            print(f"{page}: failed after this:\n{said}")
            wrong += 1
        ran += len(commands)
    if 3 * left_out > ran + left_out:
        print(f"expected at most one block in three that is not run, found {left_out} of {ran + left_out}")
        wrong += 1
    print(f"{len(pages)} pages, {ran} blocks run, {left_out} not, {wrong} wrong")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
