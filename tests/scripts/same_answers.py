#!/usr/bin/env python3
"""Two builds of the espalier command answer alike: tokens equal, leaves equal but for hairlines, logits near.

    same_answers.py --first build/bin/espalier --second "qemu-aarch64-static build-aarch64/bin/espalier" \\
        --model models/minilm-trees.esp --sentences tests/data/golden/sentences.txt [--tsv dev.tsv --rows 40] \\
        [--second-variables NAME=VALUE ...]

Both run float32 on the native backend, each with the instruction set that is its best unless a variable says
otherwise. A walk that passes a node within `hairline` of its threshold may end elsewhere, and everything behind it
is then different: such sentences are counted and their logits not compared.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HAIRLINE = 1e-4


def run(command, variables, subcommand, model, sentences):
    head = ["--head", "sst2"] if subcommand == "classify" else []
    arguments = shlex.split(command) + [subcommand, model, *head, "--json", "--precision", "f32", "--backend", "native"]
    environment = {**os.environ, **dict(v.split("=", 1) for v in variables)}
    done = subprocess.run(arguments, input="\n".join(sentences) + "\n", capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: exit status {done.returncode}: {done.stderr.strip()}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row for row in rows if "text" in row]


def walks(layer):
    """(leaf, margin) of every token in every tree, in one order."""
    for leaves, margins in zip(layer["leaf"], layer["margin"], strict=True):
        yield from zip(leaves, margins, strict=True)


def strayed(a, b):
    """Margins of the walks that ended elsewhere in the first layer where any did: what comes behind it reads other
    numbers."""
    for x, y in zip(a["layers"], b["layers"], strict=True):
        margins = [min(m, n) for (i, m), (j, n) in zip(walks(x), walks(y), strict=True) if i != j]
        if margins:
            return margins
    return []


def compare(first, second, tolerance):
    """What differs, in words; how many walks there were; in how many sentences one ended elsewhere."""
    (routes_a, scores_a), (routes_b, scores_b) = first, second
    problems, total, elsewhere, largest = [], 0, 0, 0.0
    for a, b, x, y in zip(routes_a, routes_b, scores_a, scores_b, strict=True):
        name = repr(a["text"][:50])
        if a["tokens"] != b["tokens"]:
            problems.append(f"{name}: other tokens")
            continue
        total += sum(len(layer["leaf"]) * len(layer["leaf"][0]) for layer in a["layers"])
        margins = strayed(a, b)
        if margins:
            elsewhere += 1
            if max(margins) >= HAIRLINE:
                problems.append(f"{name}: another leaf with a margin of {max(margins):.2e}, no hairline")
            continue
        difference = max(abs(p - q) for p, q in zip(x["logits"], y["logits"], strict=True))
        largest = max(largest, difference)
        if not difference <= tolerance:
            problems.append(f"{name}: logits {difference:.2e} apart, expected at most {tolerance:.0e}")
    return problems, total, elsewhere, largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", required=True)
    parser.add_argument("--second", required=True)
    parser.add_argument("--second-variables", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--model", required=True)
    parser.add_argument("--sentences", required=True)
    parser.add_argument("--tsv", help="an SST-2 file; left out where it does not exist")
    parser.add_argument("--rows", type=int, default=40, help="of the file, spread evenly")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    options = parser.parse_args()

    with open(options.sentences, encoding="utf-8") as file:
        sentences = [line for line in file.read().split("\n") if line]
    if options.tsv and os.path.exists(options.tsv):
        with open(options.tsv, encoding="utf-8") as file:
            rows = [line.split("\t")[0] for line in file.read().split("\n")[1:] if line]
        sentences += rows[:: max(1, len(rows) // options.rows)]

    sides = [(options.first, []), (options.second, options.second_variables)]
    with ThreadPoolExecutor() as pool:
        jobs = [
            [pool.submit(run, command, variables, subcommand, options.model, sentences) for subcommand in ("routes", "classify")]
            for command, variables in sides
        ]
        first, second = ([job.result() for job in side] for side in jobs)
    for name, rows in zip(("routes", "classify") * 2, first + second):
        if len(rows) != len(sentences):
            sys.exit(f"{name}: {len(rows)} answers to {len(sentences)} sentences")
    problems, total, elsewhere, largest = compare(first, second, options.tolerance)
    print(f"{len(sentences)} sentences, {total} walks; {elsewhere} sentences where a hairline ended elsewhere;"
          f" largest difference of logits {largest:.2e}")
    for problem in problems:
        print(problem)
    if total == 0 or elsewhere * 20 > len(sentences):
        problems.append("too few sentences could be compared")
        print(problems[-1])
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
