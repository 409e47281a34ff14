#!/usr/bin/env python3
"""Where a model's time goes, by operation: samples of perf (Debian: linux-perf), one thread.

    bench/profile.py FILE... [--ids 128] [--batch 1] [--precisions int8,f32]

A FILE is a model, or the feed-forward parts of a random one of MiniLM's shape (dense:1536, none). Opening the model is in
the samples too, under "the rest"; --seconds makes it small.
"""
import argparse
import os
import re
import subprocess
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The first that matches "object symbol". oneDNN's kernels are made at run time: they have no symbols.
OPERATIONS = [("projections and dense layers", r"GemmRows|gemm_panels|GemmBlock|libdnnl|\[JIT\]|//anon|\[unknown\]|perf-\d+\.map"),
              ("attention", r"attention|pack_keys|pack_values|AttentionRows|transpose_keys|exponentials|pack_byte|transpose_tokens|byte_weights|\btile<|\bstrip<|\bmultiply<"),
              ("leaves: walk", r"walk"),
              ("leaves: products", r"UpRows|DownRows|LeafBlock|leaf_forest|count_into_leaves"),
              ("activations", r"apply_all|activate"),
              ("norms, rounding", r"norm_row|norm_rows|round_|rotate|sum_of_bytes"),
              ("embeddings", r"add_embeddings|widen")]


def shares(subject, precision, a):
    command = [os.path.join(ROOT, "build/bin/espalier"), "bench", "model"]
    command += [subject] if os.path.exists(subject) else ["--synthetic", "minilm", "--ffn", subject]
    command += ["--ids", str(a.ids), "--batch", str(a.batch), "--seconds", str(a.seconds), "--precision", precision, "--json"]
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "data")
        subprocess.run(["perf", "record", "-q", "-F", "4000", "-o", data, *command], check=True, stdout=subprocess.DEVNULL)
        text = subprocess.run(["perf", "report", "-i", data, "--no-children", "--stdio", "-F", "overhead,dso,sym"], check=True,
                              capture_output=True, text=True).stdout
    found = {name: 0.0 for name, _ in OPERATIONS} | {"the rest": 0.0}
    for line in text.splitlines():
        match = re.match(r"\s*([\d.]+)%\s+(.*)", line)
        if match:
            name = next((n for n, pattern in OPERATIONS if re.search(pattern, match[2])), "the rest")
            found[name] += float(match[1])
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("subjects", nargs="+", metavar="FILE")
    ap.add_argument("--ids", type=int, default=128)
    ap.add_argument("--batch", type=int, default=1)
    ap.add_argument("--seconds", type=float, default=4)
    ap.add_argument("--precisions", type=lambda s: s.split(","), default=["int8", "f32"])
    a = ap.parse_args()
    columns = [(subject, precision) for precision in a.precisions for subject in a.subjects]
    found = [shares(subject, precision, a) for subject, precision in columns]
    print("| % of samples | " + " | ".join(f"{os.path.basename(s)}, {p}" for s, p in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in found[0]:
        print(f"| {name} | " + " | ".join(f"{f[name]:.0f}" for f in found) + " |")


if __name__ == "__main__":
    main()
