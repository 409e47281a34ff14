"""What compare.py and glue.py share: processes that take turns, medians of paired turns, tables."""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile

import bert
import serving

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ESPALIER = os.path.join(ROOT, "build/bin/espalier")
TREES = os.path.join(ROOT, "models/minilm-trees.esp")
TREE, DENSE = "espalier tree", "espalier dense"


class Server:
    """A process that answers every line with a line of JSON."""

    def __init__(self, name, command):
        self.name, self.log, self.ended = name, tempfile.TemporaryFile("w+"), False
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def ask(self, question):
        try:
            self.process.stdin.write(question + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
            while line and not line.startswith("{"):  # progress of a peer's own tools
                line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        self.ended = not line
        answer = json.loads(line) if line else {"error": "ended: " + self.last_words()}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def last_words(self):
        self.process.wait()
        self.log.seek(0)
        return last_line(self.log.read())

    def stop(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # a question that it did not read any more
            pass
        self.process.wait()


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def usable(peers):
    """Those of the peers that start; what the others lack goes to stderr, a line each."""
    found = []
    for name in peers:
        done = subprocess.run([sys.executable, peer_script(name), "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            found.append(name)
        else:
            print(f"left out: {name}: {last_line(done.stderr)}", file=sys.stderr)
    return found


def peer_script(name):
    return os.path.join(HERE, name + "_peer.py")


def peer_names(text):
    names = text.split(",")
    if not set(names) <= set(serving.PEERS):
        raise argparse.ArgumentTypeError(f"takes names of {','.join(serving.PEERS)}")
    return names


def convert(source, target, *more):
    if not os.path.exists(target):
        subprocess.run([ESPALIER, "convert", source, "-o", target, *more], check=True, stdout=subprocess.DEVNULL)
    return target


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def paired(values, tree):
    """Median of the ratios of paired turns and its 95 % interval, by order statistics."""
    ratios = sorted(v / t for v, t in zip(values, tree))
    n = len(ratios)
    half = 0.98 * n ** 0.5
    low, high = ratios[max(0, int(n / 2 - half))], ratios[min(n - 1, int(n / 2 + half))]
    return [round(v, 3) for v in (statistics.median(ratios), low, high)]


def title(row):
    """A program's name in a table."""
    return f"{row['program']} {row['version']} ({row['variant']})" if row["version"] else row["program"]


def write_csv(path, rows):
    with open(path, "w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_markdown(path, titles, rows):
    with open(path, "w") as f:
        for cells in [titles, ["---"] * len(titles), *rows]:
            print(f"| {' | '.join(map(str, cells))} |", file=f)
    with open(path) as f:
        print("\r" + f.read(), end="")
