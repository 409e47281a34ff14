#!/usr/bin/env python3
"""Builds the documentation site: build-site/html/index.html.

  scripts/site.py        needs Debian's package mkdocs

The pages are the repository's own Markdown files where they lie, with the files that they link to, so that links hold
here and on the site alike; and a page for each public header. A link or anchor that leads nowhere is an error.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SITE = ROOT / "build-site"
HEADERS = ROOT / "runtime" / "include" / "espalier"


def pieces(header: str):
    """Top-level comments and declarations of a C or C++ header, in order: ("comment" or "code", lines).

    What stands between the braces of extern "C" and of namespaces counts as top level; preprocessor lines are left out.
    """
    kind, lines, depth, inside = "", [], 0, False
    for line in header.splitlines():
        bare = line.strip()
        if re.match(r'#|extern "C" \{|namespace [\w:]+ \{$|\}\s+// namespace', bare) or (bare == "}" and depth == 0):
            now = ""
        elif depth == 0 and (inside or re.match(r"/\*|//", bare)):
            inside = bare.startswith("/*") and "*/" not in bare or inside and "*/" not in bare
            now = "comment"
        else:
            now = "code" if bare or depth else ""
            code = re.sub(r"/\*.*?\*/|//.*", "", line)
            depth += code.count("{") - code.count("}")
        if now != kind and lines:
            yield kind, lines
            lines = []
        kind = now
        if now:
            lines.append(line)
    if lines:
        yield kind, lines


def prose(comment: list[str]) -> str:
    text = "\n".join(re.sub(r"^\s*(/\*|\*/|\*|//) ?", "", line) for line in comment)
    # What is C in prose, outside of backticks, must not become emphasis or a tag.
    parts = text.replace("*/", "").strip().split("`")
    return "`".join(part if i % 2 else re.sub(r"([<>*_\[\]])", r"\\\1", part) for i, part in enumerate(parts))


def api_page(path: pathlib.Path) -> str:
    page = [f"# `{path.name}`\n", f"[The header itself](../runtime/include/espalier/{path.name})\n"]
    for kind, lines in pieces(path.read_text(encoding="utf-8")):
        if kind == "code":
            page.append("```c\n" + "\n".join(lines) + "\n```\n")
        elif section := re.fullmatch(r"/\* -+ (.*?) -+ \*/", lines[0].strip()):
            page.append(f"## {section[1].capitalize()}\n")
            page += [prose(lines[1:]) + "\n"] * (len(lines) > 1)
        else:
            page.append(prose(lines) + "\n")
    return "\n".join(page)


def tracked() -> list[pathlib.Path]:
    names = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    return [pathlib.Path(name) for name in names.splitlines()]


def stage(pages: pathlib.Path) -> None:
    files = tracked()
    texts = [f for f in files if f.suffix == ".md" and f.parts[0] != "tests"]
    linked = set()
    for file in texts:
        text = (ROOT / file).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            linked.add(pathlib.Path(os.path.normpath(file.parent / target)))
        check_anchors(file, text)
    for file in {*texts, *(linked & set(files)), *(p.relative_to(ROOT) for p in HEADERS.iterdir())}:
        (pages / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, pages / file)
    (pages / "api").mkdir()
    for header in sorted(HEADERS.iterdir()):
        (pages / "api" / (header.name + ".md")).write_text(api_page(header), encoding="utf-8")


def check_anchors(file: pathlib.Path, text: str) -> None:
    """mkdocs looks at files alone."""
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        other = ROOT / file.parent / target if target else ROOT / file
        titles = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.M) if other.exists() else []
        if anchor not in [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]:
            sys.exit(f"{file}: no heading of {target or file} makes the anchor #{anchor}")


def main() -> None:
    shutil.rmtree(SITE, ignore_errors=True)
    stage(SITE / "pages")
    config = ROOT / "docs" / "mkdocs.yml"
    subprocess.run(["mkdocs", "build", "--quiet", "--strict", "--config-file", config], check=True)
    print(f"{SITE / 'html' / 'index.html'}")


if __name__ == "__main__":
    main()
