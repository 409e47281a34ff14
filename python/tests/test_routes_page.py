"""The page of `espalier routes --html`, in a headless browser where there is one (ESPALIER_BROWSER names it)."""

import html.parser
import json
import os
import shutil
import subprocess

import pytest

from conftest import ROOT

COMMAND = os.environ.get("ESPALIER_COMMAND")
BROWSER = os.environ.get("ESPALIER_BROWSER") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="ESPALIER_COMMAND names no command to run")

MODEL = ROOT / "models" / "minilm-trees.esp"
TEXTS = ["a cat and a cat & a <b>dog</b>", "</script><script>alert(1)</script>", "trees grow\tleaves fall"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "routes.html"
    command = [COMMAND, "routes", MODEL, "--json", "--html", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True, input="\n".join(TEXTS) + "\n")
    return file, [json.loads(line) for line in done.stdout.splitlines()]


class Reader(html.parser.HTMLParser):
    """Elements that start, links to elsewhere, and cells: their leaf and what they say."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.cells, self.script = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.links += [v for k, v in attributes.items() if k in ("src", "href")]
        if "data-leaf" in attributes:
            self.cells.append((attributes["data-leaf"], attributes["title"]))
        self.inside = attributes.get("id") == "data"

    def handle_data(self, data):
        if getattr(self, "inside", False):
            self.script, self.inside = data, False


def test_the_page_holds_what_the_command_says(page):
    file, lines = page
    text = file.read_text()
    read = Reader(text)
    data = json.loads(read.script)
    assert data["texts"] == lines[:-1] and data["usage"] == lines[-1]["usage"]
    assert read.links == [] and "http" not in text and read.tags.count("script") == 2


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
def test_in_a_browser(page):
    file, lines = page
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([*command, f"file://{file}"], capture_output=True, text=True, timeout=120)
    read = Reader(done.stdout)
    expected = []
    for text in lines[:-1]:
        for layer in text["layers"]:
            for token, (leaf, margin) in enumerate(zip(layer["leaf"], layer["margin"])):
                expected.append((f"{layer['block']}-{layer['part']}-0-{leaf[0]}", text["tokens"][token], leaf[0]))
    assert len(read.cells) == len(expected) > 100
    for (key, title), (leaf, word, number) in zip(read.cells, expected):
        assert key == leaf and title.startswith(f"{word}: leaf {number}, margin ")
    assert done.stdout.count('title="leaf ') == sum(u["leaves"] * len(u["trees"]) for u in lines[-1]["usage"])
