"""Decoders in Espalier against llama.cpp, timed alternately: a prompt, then tokens one by one.

    bench/peers/run decoders [--models llama-2048-8,DIR,MODEL.bin:TOKENIZER.bin] [--precisions f32,bf16,int8] [--threads 1]
        [--lengths 32,128] [--rounds 15] [--out FOLDER]

A model is a random one of a shape (llama-HIDDEN-LAYERS), a Hugging Face folder, or a llama2.c file with its tokenizer; both
programs run the same shape in the same precision (int8: ours 8-bit with rotations and a scale a row, llama.cpp's Q8_0).
One process a program, both alive at once, neither running while the other is timed; in every round each takes a turn of
prompts, and of 8 tokens behind each, with new random ids. A ratio is the median over rounds of (llama.cpp's median in its
turn / ours in that round). Token ids in, logits out; llama.cpp's are checked against double precision. Beside the time of
a token stands how fast its weights were read; how fast memory is read at all is printed first.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import driver
from driver import ESPALIER, ROOT, Server

PROGRAMS = ("espalier", "llama.cpp")


def read_speed(threads):
    """GB/s at which memory is read, as `bench layer` finds it."""
    command = [ESPALIER, "bench", "layer", "--hidden", "64", "--ffn", "dense:64", "--batch", "1", "--precision", "f32", "--seconds", "0.5",
               "--threads", str(threads), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["roofline"]["memory_gb_per_s"]


def converted(model, folder):
    """The model file of ours, and what llama.cpp reads."""
    source, _, tokenizer = model.partition(":")
    target = os.path.join(folder, os.path.basename(source.rstrip("/")) + ".esp")
    return driver.convert(source, target, *(["--tokenizer", tokenizer] if tokenizer else [])), source


def servers(model, precision, threads, folder):
    common = ["--precision", precision, "--threads", str(threads)]
    if model.startswith("llama-"):
        ours, source = ["--synthetic", model], model
    else:
        target, source = converted(model, folder)
        ours = [target]
    yield Server(PROGRAMS[0], [ESPALIER, "bench", "model", *ours, "--serve", *common])
    yield Server(PROGRAMS[1], [sys.executable, os.path.join(driver.HERE, "llamacpp_decoder.py"), "--model", source, *common])


def measure(both, length, rounds):
    """Medians of prompt and token of each program, the ratios, and what the programs said."""
    answers = [s.ask(f"{length} 2") for s in both]
    repeats = [max(1, round(150 / (statistics.median(a["ms"]) + sum(a["decode_ms"]) / len(a["ms"])))) for a in answers]
    turns = {"ms": ([], []), "decode_ms": ([], [])}
    for _ in range(rounds):
        for i, s in enumerate(both):
            answers[i] = s.ask(f"{length} {repeats[i]}")
            for key, medians in turns.items():
                medians[i].append(statistics.median(answers[i][key]))
    return {key: ([statistics.median(own) for own in medians], driver.paired(medians[1], medians[0])) for key, medians in turns.items()}, answers


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--models", type=lambda s: s.split(","), default=["llama-2048-8"])
    ap.add_argument("--precisions", type=lambda s: s.split(","), default=["f32", "bf16", "int8"])
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--lengths", type=lambda s: [int(n) for n in s.split(",")], default=[32, 128])
    ap.add_argument("--rounds", type=int, default=15)
    ap.add_argument("--out", default=os.path.join(ROOT, "build", "peers"))
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    speed, rows = read_speed(a.threads), []
    print(f"memory is read at {speed:.1f} GB/s", file=sys.stderr)
    for model in a.models:
        for precision in a.precisions:
            both = []
            try:
                both = list(servers(model, precision, a.threads, a.out))
                for length in a.lengths:
                    times, answers = measure(both, length, a.rounds)
                    weights = answers[0]["next_weight_bytes"]
                    rows.append({"model": os.path.basename(model.partition(":")[0].rstrip("/")), "precision": precision, "threads": a.threads, "ids": length,
                                 "prompt_ms": round(times["ms"][0][0], 3), "llama.cpp_prompt_ms": round(times["ms"][0][1], 3),
                                 "prompt_ratio": times["ms"][1], "token_ms": round(times["decode_ms"][0][0], 4),
                                 "llama.cpp_token_ms": round(times["decode_ms"][0][1], 4), "token_ratio": times["decode_ms"][1],
                                 "weights_mb": round(weights / 1e6, 2), "gb_per_second": round(weights / times["decode_ms"][0][0] / 1e6, 1),
                                 "memory_gb_per_second": round(speed, 1), "version": answers[1]["version"], "variant": answers[1]["variant"]})
                    print(rows[-1], file=sys.stderr)
            except RuntimeError as error:
                print(f"{model} {precision}: {error}", file=sys.stderr)
            for s in both:
                s.stop()
    if not rows:
        sys.exit("nothing was measured")
    base = os.path.join(a.out, "decoders")
    driver.write_csv(base + ".csv", rows)
    spread = "{0[0]:.2f} ({0[1]:.2f} to {0[2]:.2f})".format
    titles = ["model", "precision", "ids", "prompt, ms", "llama.cpp", "times ours (95 %)", "a token, ms", "llama.cpp", "times ours (95 %)",
              "weights a token, MB", "GB/s"]
    driver.write_markdown(base + ".md", titles, [
        [r["model"], r["precision"], r["ids"], r["prompt_ms"], r["llama.cpp_prompt_ms"], spread(r["prompt_ratio"]), r["token_ms"],
         r["llama.cpp_token_ms"], spread(r["token_ratio"]), r["weights_mb"], r["gb_per_second"]] for r in rows])


if __name__ == "__main__":
    main()
