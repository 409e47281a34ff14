"""A runtime on the dense MiniLM and sentences of mixed lengths, for glue.py.

    python bench/peers/glue_peer.py --peer openvino|onnxruntime --data dev.tsv --precision P --threads T [--batches 1,8,32]

Each line `sorted` or `file` on stdin is one pass over the file, answered by a JSON line: {"peer", "version", "variant",
"tokens", "padded_tokens", "max_error", "cosine", "text_seconds", "ids_seconds"} or {"error": ...}. sorted: batches of
sentences of like length; file: as they come. A batch is padded to its longest sentence, padding masked. text_seconds
are tokenising (Hugging Face's tokenizers), padding and inference up to the last hidden states; ids_seconds inference
alone.

An order's first pass also chooses: of the runtime's variants and of the batch sizes the pair that takes a quarter of
the batches fastest. The shortest and the longest sentence of three batches are checked as serving.py says, and the
cores that are kept busy. int8 in OpenVINO is calibrated on 64 of the very sentences that it is timed and checked on,
which flatters its answers.
"""
import argparse
import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time

import numpy as np

import bert
import serving

PEERS = ["openvino", "onnxruntime"]
MOST_SHAPES = 40  # of models compiled for one shape each: every one has its own copy of the weights


def read(path):
    with open(path, encoding="utf-8") as f:
        header, *lines = f.read().splitlines()
    if header.split("\t")[0] != "sentence":
        sys.exit(f"{path}: expected the header sentence<TAB>label, found {header}")
    return [line.split("\t")[0] for line in lines]


class Passes:
    def __init__(self, a):
        import tokenizers
        self.a, self.m, self.texts = a, bert.load("minilm"), read(a.data)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(bert.minilm_folder() / "tokenizer.json"))
        self.tokenizer.enable_truncation(len(self.m.positions))
        self.tokenizer.no_padding()
        samples = [np.array([e.ids], np.int32) for e in self.tokenizer.encode_batch(self.texts[::max(1, len(self.texts) // 64)][:64])]
        self.kind = importlib.import_module(a.peer + "_peer").Mixed
        self.runner = self.kind(self.m, a.precision, a.threads, samples)
        self.chosen = {}

    def batches(self, order, size):
        """Pairs of padded ids and mask."""
        rows = [e.ids for e in self.tokenizer.encode_batch_fast(self.texts)]
        if order == "sorted":
            rows.sort(key=len, reverse=True)
        out = []
        for first in range(0, len(rows), size):
            some = rows[first:first + size]
            ids = np.zeros((len(some), max(map(len, some))), np.int32)
            mask = np.zeros_like(ids)
            for i, row in enumerate(some):
                ids[i, :len(row)], mask[i, :len(row)] = row, 1
            out.append((ids, mask))
        return out

    def infer(self, batches):
        start = time.perf_counter()
        for ids, mask in batches:
            self.runner.infer(ids, mask)
        return time.perf_counter() - start

    def check(self, batches, what):
        found, expected = [], []
        for ids, mask in (batches[0], batches[len(batches) // 2], batches[-1]):
            hidden, lengths = np.asarray(self.runner.infer(ids, mask)), mask.sum(1)
            for i in {int(lengths.argmin()), int(lengths.argmax())}:
                found.append(hidden[i, :lengths[i]].copy())
                expected.append(bert.reference(self.m, ids[i:i + 1, :lengths[i]])[0])
        return serving.check(np.concatenate(found), np.concatenate(expected), self.a.precision, what)

    def choose(self, order):
        """Leaves the fastest variant prepared."""
        tried, refused = {}, ValueError("no variant that can run")
        for size in self.a.batches:
            batches = self.batches(order, size)
            shapes = {ids.shape for ids, _ in batches}
            some = batches[::4]
            tokens = sum(mask.sum() for _, mask in some)
            for variant in self.kind.variants(self.a.precision):
                if variant.startswith("static") and len(shapes) > MOST_SHAPES:
                    continue
                try:
                    self.runner.prepare(variant, {ids.shape for ids, _ in some})
                    answers = self.check(some, f"{variant}, batches of {size}, {order}")
                    serving.check_threads(lambda: self.infer(some), self.a.threads)
                except ValueError as error:
                    print(f"not used: {error}", file=sys.stderr)
                    refused = error
                    continue
                self.infer(some)
                seconds = min(self.infer(some) for _ in range(2))
                tried[seconds / tokens] = variant, size, shapes, answers
        if not tried:
            raise refused
        variant, size, shapes, answers = tried[min(tried)]
        self.runner.prepare(variant, shapes)
        self.infer(self.batches(order, size))
        self.chosen = {order: (variant, size, answers)}

    def one(self, order):
        if order not in self.chosen:
            self.choose(order)
        variant, size, (error, cosine) = self.chosen[order]
        start = time.perf_counter()
        batches = self.batches(order, size)
        tokenised = time.perf_counter() - start
        seconds = self.infer(batches)
        serving.drain(self.a.threads)
        return {"peer": self.a.peer, "version": importlib.metadata.version(self.a.peer), "variant": f"{variant}, batches of {size}",
                "tokens": int(sum(mask.sum() for _, mask in batches)), "padded_tokens": sum(ids.size for ids, _ in batches),
                "max_error": error, "cosine": cosine, "text_seconds": tokenised + seconds, "ids_seconds": seconds}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peer", choices=PEERS, required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--precision", choices=["f32", "bf16", "int8"], default="f32")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--batches", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8, 32])
    a = ap.parse_args()
    os.environ.update(RAYON_NUM_THREADS=str(a.threads), TOKENIZERS_PARALLELISM="true" if a.threads > 1 else "false")
    passes = Passes(a)
    gc.disable()
    for line in sys.stdin:
        try:
            answer = passes.one(line.strip())
        except ValueError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
