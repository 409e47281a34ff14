#!/usr/bin/env python3
"""Plots what `espalier bench layer --sweep --csv FILE` wrote: how many times the dense layer's time the trees
save, and how much of the machine's limit they reach, against the batch.

    python3 -m venv .venv && .venv/bin/pip install matplotlib
    .venv/bin/python bench/plot_layer.py layer.csv -o layer.png        # or .svg, .pdf

One figure a layer (--ffn, --hidden, --against, --routing) and number of threads; with more than one, their
names go into the file's: layer-neuron-1-11-1T.png. One line a precision. Can be run while a sweep writes.
"""
import argparse
import csv
import pathlib
import re
import sys

COLOURS = {"f32": "tab:blue", "bf16": "tab:orange", "int8": "tab:green"}


def number(row, key):
    try:
        return float(row[key])
    except (KeyError, TypeError, ValueError):
        return None


def read(paths):
    """Figures by name, in each: lines by precision, in each: (batch, ratio, share of the bound, dense share)."""
    figures = {}
    for path in paths:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if row.get("supported") != "true":
                    continue
                ratio = number(row, "ratio") or number(row, "ratio_to_bound")
                if ratio is None:
                    continue
                key = tuple(row[k] for k in ("hidden", "ffn", "against", "routing", "threads", "isa"))
                point = (int(row["batch"]), ratio, number(row, "bound_fraction"), number(row, "dense_peak_fraction"),
                         number(row, "flop_ratio"), number(row, "ratio") is None)
                figures.setdefault(key, {}).setdefault(row["precision"], {})[point[0]] = point
    return figures


def draw(plt, key, lines, target):
    hidden, ffn, against, routing, threads, isa = key
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 8), sharex=True, height_ratios=[3, 2])
    batches, flop_ratio, bounds = set(), None, False
    for precision, points in lines.items():
        points = [points[b] for b in sorted(points)]
        batches.update(p[0] for p in points)
        flop_ratio = points[0][4]
        bounds = bounds or any(p[5] for p in points)
        colour = COLOURS.get(precision)
        x = [p[0] for p in points]
        top.plot(x, [p[1] for p in points], "o-", color=colour, label=precision)
        bottom.plot(x, [None if p[2] is None else 100 * p[2] for p in points], "o-", color=colour,
                    label=f"{precision}: trees, of their bound")
        if any(p[3] is not None for p in points):
            bottom.plot(x, [None if p[3] is None else 100 * p[3] for p in points], "x:", color=colour,
                        label=f"{precision}: dense, of peak arithmetic")
    if flop_ratio:
        top.axhline(flop_ratio, color="grey", linestyle="--", linewidth=1)
        top.annotate(f"{flop_ratio:.0f}x fewer multiply-adds", (min(batches), flop_ratio), color="grey",
                     xytext=(0, 3), textcoords="offset points", fontsize=8)
    top.set(xscale="log", yscale="log", ylabel="dense time / tree time" + (" (dense: its bound)" if bounds else ""))
    top.set_xscale("log", base=2)
    top.set_title(f"hidden {hidden}, {ffn} against {against}, {threads} thread{'s' if threads != '1' else ''}, {isa}"
                  + (f", {routing} routing" if routing != "random" else ""), fontsize=10)
    for axis in ("major", "minor"):
        getattr(top.yaxis, f"set_{axis}_formatter")(lambda value, _: f"{value:g}")
    bottom.set(xlabel="tokens of a call", ylabel="% of the limit", ylim=(0, 105))
    bottom.set_xticks(sorted(batches), [str(b) for b in sorted(batches)])
    bottom.minorticks_off()
    for axes in (top, bottom):
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=150)
    plt.close(figure)
    print(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="+", help="written by espalier bench layer --sweep")
    parser.add_argument("-o", "--output", default="layer.png", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        import matplotlib
    except ImportError:
        sys.exit("plot_layer.py: matplotlib is missing: pip install matplotlib (in a virtual environment)")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figures = read(arguments.csv)
    if not figures:
        sys.exit(f"plot_layer.py: {', '.join(arguments.csv)}: no supported row with a ratio")
    for key, lines in figures.items():
        target = arguments.output
        if len(figures) > 1:
            hidden, ffn, against, routing, threads, isa = key
            words = re.sub(r"[^A-Za-z0-9]+", "-", f"{ffn}-{hidden}-{against}-{routing}-{isa}-{threads}T")
            target = target.with_name(f"{target.stem}-{words}{target.suffix}")
        draw(plt, key, lines, target)


if __name__ == "__main__":
    main()
