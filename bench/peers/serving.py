"""What every peer's script does with its runners: answer an outside driver, or report by itself.

A peer's module gives make(model, args, variant, length, rng) -> a runner with
    infer(ids)   ids [batch, length] int32 in, last hidden states [batch, length, hidden] out, as a numpy array
and its variants; the fastest of those is kept for every length. Before anything is timed runners must keep no more
cores busy than they were given, and their answers are checked against the numpy reference: float32 within 1e-4;
bf16 and int8 with a cosine of at least 0.99 over all hidden states of a batch (a peer that buys speed with wrong
answers is not a baseline).

--serve: each line `LENGTH REPEATS` on stdin gets one JSON line: {"peer", "version", "variant", "precision",
"batch", "ids", "threads", "max_error", "cosine", "ms": [one per call]}, or {"error": ...}. A length's first
request also builds, checks and warms its runners: send `LENGTH 1` first and drop the answer. Ids are random
and new in every call. With --threads above 1 the reply is held back until idle workers have stopped spinning,
so that they take no core from the process whose turn is next.
"""
import argparse
import gc
import json
import sys
import time

import numpy as np

import bert

# Every peer and the precisions that it has.
PEERS = {"openvino": ("f32", "bf16", "int8"), "onnxruntime": ("f32", "int8"), "ctranslate2": ("f32", "int8"),
         "llamacpp": ("bf16", "int8"), "torch": ("f32", "bf16", "int8")}
WARMUP_CALLS = 5
VARIANT_SECONDS = 1.0
SPIN_DRAIN_S = 0.25


def check(found, expected, precision, what):
    """The largest error and the cosine of answers; raises where they are not good enough."""
    error = float(np.abs(found - expected).max())
    cosine = float((found * expected).sum() / np.sqrt((found * found).sum() * (expected * expected).sum()))
    if not (error < 1e-4 if precision == "f32" else cosine >= 0.99):
        raise ValueError(f"{what}: max abs error {error:g}, cosine {cosine:.4f}")
    return error, round(cosine, 6)


def check_threads(call, threads):
    """Raises where calls take more of the machine than they were given."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 0.2:
        call()
    used = (time.process_time() - cpu) / (time.perf_counter() - wall)
    if used > threads + 0.25:
        raise ValueError(f"kept {used:.1f} cores busy, expected {threads}")


class Checked:
    """A runner whose answers were found right. `row` is what is reported."""

    def __init__(self, make, m, args, variant, length, rng):
        self.rng, self.vocab, self.threads = rng, m.vocab, args.threads
        self.shape = args.batch, length
        self.runner = make(m, args, variant, length, rng)
        for _ in range(WARMUP_CALLS):
            self.call()
        check_threads(self.call, args.threads)
        drain(args.threads)
        some = min(args.batch, 4)  # the reference is slow
        error, cosine = check(np.asarray(self.out)[:some], bert.reference(m, self.ids[:some]), args.precision,
                              f"{variant} {args.precision}, length {length}")
        self.row = {"variant": variant, "precision": args.precision, "batch": args.batch, "ids": length,
                    "threads": args.threads, "max_error": error, "cosine": cosine}

    def call(self):
        """Runs once with new random ids and returns the milliseconds."""
        self.ids = self.rng.integers(0, self.vocab, self.shape, dtype=np.int32)
        start = time.perf_counter_ns()
        self.out = self.runner.infer(self.ids)
        return (time.perf_counter_ns() - start) / 1e6


def drain(threads):
    time.sleep(SPIN_DRAIN_S if threads > 1 else 0)


def fastest(make, m, args, length, rng):
    """Of the variants whose answers are right; raises what the last one lacked if none is."""
    runners, refused = [], ValueError("no variant that can run")
    for variant in args.variants:
        try:
            runners.append(Checked(make, m, args, variant, length, rng))
        except ValueError as error:
            print(f"not used: {error}", file=sys.stderr)
            refused = error
    if not runners:
        raise refused
    if len(runners) == 1:
        return runners[0]
    times = [[] for _ in runners]
    for _ in range(5):
        for runner, own in zip(runners, times):
            runner.call()
            start = time.time()
            while time.time() - start < VARIANT_SECONDS / 5:
                own.append(runner.call())
            drain(args.threads)
    return runners[int(np.argmin([np.median(own) for own in times]))]


def serve(make, m, args, rng, head):
    ready = {}
    for line in sys.stdin:
        try:
            length, repeats = (int(word) for word in line.split())
            if not (1 <= length <= len(m.positions) and repeats >= 1):
                raise ValueError(f"want `LENGTH REPEATS`, LENGTH 1 to {len(m.positions)}")
            if length not in ready:
                ready[length] = fastest(make, m, args, length, rng)
        except ValueError as error:
            print(json.dumps({"error": str(error)}), flush=True)
            continue
        ms = [round(ready[length].call(), 5) for _ in range(repeats)]
        drain(args.threads)
        print(json.dumps(head | ready[length].row | {"ms": ms}), flush=True)


def report(make, m, args, rng, head):
    for length in args.lengths:
        runner = fastest(make, m, args, length, rng)
        start, ms = time.time(), []
        while time.time() - start < args.seconds or len(ms) < 5:
            ms.append(runner.call())
        print(json.dumps(head | runner.row | {"median_ms": round(float(np.median(ms)), 4),
                                              "p99_ms": round(float(np.percentile(ms, 99)), 4), "calls": len(ms)}), flush=True)


def main(make, variants, head, doc):
    precisions = PEERS[head["peer"]]
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, bert-base (random weights) or a Hugging Face BERT folder")
    for name in ("--threads", "--batch"):
        parser.add_argument(name, type=int, default=1)
    parser.add_argument("--lengths", type=lambda s: [int(n) for n in s.split(",")], default=[32, 128])
    parser.add_argument("--seconds", type=float, default=2, help="timed seconds per length")
    parser.add_argument("--precision", choices=precisions, default=precisions[0])
    parser.add_argument("--variants", type=lambda s: s.split(","))
    parser.add_argument("--serve", action="store_true", help="answer `LENGTH REPEATS` lines from stdin")
    args = parser.parse_args()
    known = variants(args.precision)
    args.variants = args.variants or known
    if not set(args.variants) <= set(known):
        parser.error(f"--variants takes names of {','.join(known)}")
    m, rng = bert.load(args.model), np.random.default_rng(1)
    gc.disable()
    (serve if args.serve else report)(make, m, args, rng, head)
