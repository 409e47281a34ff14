"""Tree, dense and no-FFN encoders in Espalier against other runtimes on the dense model of the same shape, timed alternately.

    bench/peers/run [--shape minilm|bert-base] [--trees FILE] [--precisions f32,bf16,int8] [--threads 1,2] [--batches 1,32]
        [--lengths 8,32,128] [--peers openvino,onnxruntime,ctranslate2,llamacpp,torch] [--rounds 30] [--out FOLDER]

One process a program, all alive at once, none running while another is timed: in every round each gets a turn
of at least 50 ms of calls in a row, whose first call is dropped (it finds the others' weights in the caches).
A ratio is the median over rounds of (median of a program's turn / median of the tree's turn in that round), so
that a machine that drifts favours nobody; beside it its 95 % interval (order statistics). Token ids in, last
hidden states out, new random ids every call, no padding. Peers check their own answers (serving.py) and choose
their fastest variant; one that is not installed, lacks a precision or answers wrongly has no row.

minilm: trees are models/minilm-trees.esp (dense:64+leaf:1:6:64), dense is all-MiniLM-L6-v2 in every program.
--trees takes another file of that shape. bert-base: random weights, trees dense:64+leaf:1:5:128. Two rows more: without any
feed-forward layer, and with a dense one of the trees' multiply-adds.
"""
import argparse
import os
import statistics
import sys
import time

import bert
import driver
import serving
from driver import DENSE, ESPALIER, ROOT, TREE, TREES, Server

# The dense layer of the tree layer's multiply-adds: its neurons, and half a neuron for every node test.
SHAPES = {"minilm": {"dense": "dense:1536", "equal": "dense:131"},
          "bert-base": {"tree": "dense:64+leaf:1:5:128", "dense": "dense:3072", "equal": "dense:195"}}


def programs(a, precision, threads, batch):
    def ours(*arguments):
        return [ESPALIER, "bench", "model", *arguments, "--serve", "--precision", precision,
                "--threads", str(threads), "--batch", str(batch)]

    def random(ffn):
        return ours("--synthetic", a.shape, "--ffn", ffn)

    def peer(name):
        return [sys.executable, driver.peer_script(name), "--serve", "--model", a.shape, "--precision", precision,
                "--threads", str(threads), "--batch", str(batch), "--lengths", ",".join(map(str, a.lengths))]

    shape = SHAPES[a.shape]
    minilm = a.shape == "minilm"
    yield TREE, ours(a.trees) if minilm else random(shape["tree"])
    yield DENSE, ours(driver.convert(bert.minilm_folder(), os.path.join(a.out, "minilm.esp"))) if minilm else random(shape["dense"])
    yield "espalier, dense of equal FLOPs", random(shape["equal"])
    yield "espalier, no FFN", random("none")
    for name in a.peers:
        if precision in serving.PEERS[name]:
            yield name, peer(name)


def bounds(work, tree):
    """What a call of ours has to do, and how many times the trees' call that is: no ratio of times can be honest far above both."""
    if "multiply_adds" not in work:
        return {"leaves": "", "weights_mb": "", "times_multiply_adds": "", "times_weights": ""}
    return {"leaves": " ".join(map(str, work["distinct_leaves"])), "weights_mb": round(work["weight_bytes"] / 1e6, 2),
            "times_multiply_adds": round(work["multiply_adds"] / tree["multiply_adds"], 2),
            "times_weights": round(work["weight_bytes"] / tree["weight_bytes"], 2)}


def measure(servers, length, rounds, label):
    """Rows of one cell; a program that cannot do it is left out, and said so."""
    def ask(s, calls):
        answers[s] = s.ask(f"{length} {calls}")
        return answers[s]["ms"]

    repeats, answers, out = {}, {}, []
    for s in servers:
        try:
            if not s.ended:
                ask(s, 2)
                repeats[s] = max(2, int(50 / statistics.median(ask(s, 3))))
        except RuntimeError as error:
            print(f"{label}: {s.name}: {error}", file=sys.stderr)
    if not repeats or repeats.keys().isdisjoint({servers[0]}):
        return []
    times, medians = {s: [] for s in repeats}, {s: [] for s in repeats}
    start = time.time()
    for done in range(rounds):
        for s in repeats:
            turn = ask(s, repeats[s] + 1)[1:]
            times[s] += turn
            medians[s].append(statistics.median(turn))
        if sys.stderr.isatty():
            left = (time.time() - start) / (done + 1) * (rounds - done - 1)
            print(f"\r{label}: round {done + 1} of {rounds}, {left:.0f} s left ", end="", file=sys.stderr)
    tree = medians[servers[0]]
    for s in repeats:
        ratio, low, high = driver.paired(medians[s], tree)
        out.append({"program": s.name, "version": answers[s].get("version", ""), "variant": answers[s].get("variant", ""),
                    "median_ms": round(statistics.median(times[s]), 3),
                    "p99_ms": round(driver.percentile(times[s], .99), 3), "calls": len(times[s]),
                    "times_tree": ratio, "low": low, "high": high, **bounds(answers[s], answers[servers[0]])})
    return out


def plot(rows, target):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    cells = list(dict.fromkeys((r["precision"], r["threads"], r["batch"], r["ids"]) for r in rows))
    names = [n for n in dict.fromkeys(r["program"] for r in rows) if n != TREE]
    figure, axes = plt.subplots(figsize=(max(6, 0.9 * len(cells)), 4.5))
    for i, name in enumerate(names):
        at = [(c, r["times_tree"]) for c, cell in enumerate(cells) for r in rows
              if r["program"] == name and (r["precision"], r["threads"], r["batch"], r["ids"]) == cell]
        axes.bar([c + 0.8 * i / len(names) for c, _ in at], [v for _, v in at], width=0.8 / len(names), label=name)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks([c + 0.4 for c in range(len(cells))], [f"{p}\n{t} thr, {b} x {n}" for p, t, b, n in cells], fontsize=7)
    axes.set_ylabel("time, the tree model's = 1")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=120)


def main():
    def words(text):
        return text.split(",")

    def numbers(text):
        return [int(n) for n in text.split(",")]

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--shape", choices=SHAPES, default="minilm")
    ap.add_argument("--trees", default=TREES, help="model file of MiniLM's shape")
    ap.add_argument("--precisions", type=words, default=["f32", "bf16", "int8"])
    ap.add_argument("--threads", type=numbers, default=[1, 2])
    ap.add_argument("--batches", type=numbers, default=[1, 32])
    ap.add_argument("--lengths", type=numbers, default=[8, 32, 128])
    ap.add_argument("--peers", type=driver.peer_names, default=list(serving.PEERS))
    ap.add_argument("--rounds", type=int, default=30)
    ap.add_argument("--out", default=os.path.join(ROOT, "build", "peers"), help="folder for the table (Markdown, CSV) and the plot")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    a.peers = driver.usable(name for name in a.peers if set(a.precisions) & set(serving.PEERS[name]))
    rows = []
    for precision in a.precisions:
        for threads in a.threads:
            for batch in a.batches:
                servers = [Server(*p) for p in programs(a, precision, threads, batch)]
                for length in a.lengths:
                    label = f"{a.shape} {precision}, {threads} thread{'s' * (threads > 1)}, {batch} x {length}"
                    cell = {"shape": a.shape, "precision": precision, "threads": threads, "batch": batch, "ids": length}
                    rows += [cell | r for r in measure(servers, length, a.rounds, label)]
                for s in servers:
                    s.stop()
    if not rows:
        sys.exit("nothing was measured")
    base = os.path.join(a.out, a.shape)
    driver.write_csv(base + ".csv", rows)
    titles = ["precision", "threads", "batch", "ids", "program", "median ms", "p99 ms", "times the tree's (95 %)",
              "multiply-adds, weights read (times the tree's)", "MB, leaves by layer"]
    driver.write_markdown(base + ".md", titles, [
        [r["precision"], r["threads"], r["batch"], r["ids"], driver.title(r),
         f"{r['median_ms']:.2f}", f"{r['p99_ms']:.2f}", f"{r['times_tree']:.2f} ({r['low']:.2f} to {r['high']:.2f})",
         f"{r['times_multiply_adds']}, {r['times_weights']}", f"{r['weights_mb']}, {r['leaves']}"] for r in rows])
    plot(rows, base + ".png")
    print(f"written: {base}.md, .csv, .png", file=sys.stderr)


if __name__ == "__main__":
    main()
