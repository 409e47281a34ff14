#!/usr/bin/env python3
"""llama.cpp on a decoder, answering decoders.py: each line `LENGTH REPEATS` on stdin gets a line of JSON with
"ms", the times of a prompt of LENGTH random ids up to the logits behind it, and "decode_ms", those of the tokens
behind each prompt, one by one, with logits. Before anything is timed the logits are checked against double
precision: float32 within 1e-3 of their largest, bf16 and Q8_0 with a cosine of 0.99 or more.

Of flash attention or none the faster is kept; keys and values in half precision, as llama.cpp has them.
"""
import argparse
import ctypes
import json
import os
import sys
import tempfile
import time

import llama_cpp as cpp
import numpy as np

import llama

NEXT_TOKENS = 8


class Runner:
    def __init__(self, m, path, threads, flash):
        self.vocab, self.rng, self.flash = m.vocab, np.random.default_rng(2), flash
        self.model = cpp.llama_model_load_from_file(path.encode(), cpp.llama_model_default_params())
        p = cpp.llama_context_default_params()
        p.n_ctx = p.n_batch = p.n_ubatch = min(m.window, 1024)
        p.n_threads = p.n_threads_batch = threads
        p.flash_attn_type = int(flash)
        self.context = self.model and cpp.llama_init_from_model(self.model, p)
        if not self.context:
            raise ValueError("llama.cpp could not load it")
        self.batch = cpp.llama_batch_init(p.n_batch, 0, 1)

    def decode(self, ids, first):
        """Logits behind the last of ids, which stand at places first, first + 1 and so on."""
        for i, token in enumerate(ids):
            self.batch.token[i], self.batch.pos[i], self.batch.n_seq_id[i], self.batch.seq_id[i][0] = token, first + i, 1, 0
            self.batch.logits[i] = i + 1 == len(ids)
        self.batch.n_tokens = len(ids)
        start = time.perf_counter_ns()
        if cpp.llama_decode(self.context, self.batch) != 0:
            raise ValueError("llama_decode failed")
        logits = cpp.llama_get_logits_ith(self.context, len(ids) - 1)  # waits for it
        return (time.perf_counter_ns() - start) / 1e6, logits

    def clear(self):
        cpp.llama_memory_clear(cpp.llama_get_memory(self.context), True)

    def turn(self, length):
        """Milliseconds of a prompt, and of each token behind it."""
        ids = self.rng.integers(0, self.vocab, length + NEXT_TOKENS).tolist()
        self.clear()
        return self.decode(ids[:length], 0)[0], [self.decode(ids[i : i + 1], i)[0] for i in range(length, length + NEXT_TOKENS)]

    def check(self, m, precision):
        ids = self.rng.integers(0, self.vocab, 12).tolist()
        self.clear()
        self.decode(ids[:-1], 0)
        found = np.array(np.ctypeslib.as_array(ctypes.cast(self.decode(ids[-1:], len(ids) - 1)[1], ctypes.POINTER(ctypes.c_float)), (self.vocab,)))
        expected = llama.reference(m, ids)
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        cosine = float(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
        if not (error < 1e-3 if precision == "f32" else cosine >= 0.99):
            raise ValueError(f"logits are {error:g} of the largest off, cosine {cosine:.4f}")
        return round(cosine, 6)


def best(m, args):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        llama.write_gguf(m, path, args.precision)
        runners = [Runner(m, path, args.threads, flash) for flash in (False, True)]
    cosine = [runner.check(m, args.precision) for runner in runners]
    times = [[np.sum(runner.turn(32)[1]) for _ in range(5)] for runner in runners]
    i = int(np.argmin([np.median(own) for own in times]))
    return runners[i], {"cosine": cosine[i], "variant": "flash attention" if i else "no flash attention"}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", required=True)
    ap.add_argument("--precision", choices=llama.TYPES, default="f32")
    ap.add_argument("--threads", type=int, default=1)
    args = ap.parse_args()
    cpp.llama_log_set(QUIET, None)
    cpp.llama_backend_init()
    try:
        runner, facts = best(llama.load(args.model), args)
    except ValueError as error:
        runner, facts = None, {"error": str(error)}
    for line in sys.stdin:
        length, repeats = (int(word) for word in line.split())
        if runner:
            turns = [runner.turn(length) for _ in range(repeats)]
            facts |= {"version": cpp.__version__, "ms": [t[0] for t in turns], "decode_ms": [ms for t in turns for ms in t[1]]}
        print(json.dumps(facts), flush=True)


QUIET = cpp.llama_log_callback(lambda level, text, data: None)
if __name__ == "__main__":
    main()
