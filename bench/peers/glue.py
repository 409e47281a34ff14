"""Sentences of mixed lengths: a whole GLUE file by Espalier and by the fastest other runtimes, in turns.

    bench/peers/run glue --data dev.tsv [--trees FILE] [--precisions f32,bf16,int8] [--threads 1,2] [--orders sorted,file]
        [--peers openvino,onnxruntime] [--rounds 9] [--out FOLDER]

dev.tsv is SST-2's official file: header sentence<TAB>label. Every program makes one pass over it in every round, none
running while another is timed; the first pass of each is dropped. A ratio is the median over rounds of (a program's
time / the trees' time in that round), beside it its 95 % interval.

Ours: `espalier glue MODEL --task sst2 dev.tsv --order sorted|file`, a new process a pass, opening the model not
counted; reading, tokenising, encoder, head and metrics counted. It pads nothing: up to 64 sentences or 2,048 tokens
are one call. Trees are models/minilm-trees.esp or FILE. Dense is all-MiniLM-L6-v2 with a head of random weights, so that the
same command runs it: only its speed means something.
Peers: all-MiniLM-L6-v2 up to the last hidden states, without a head, in their fastest variant and batch size
(glue_peer.py). They have two figures: with text in (tokenising and padding counted), and with ids in (batches ready,
in the peer's favour). Both are compared with ours, which always start from text.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

import bert
import driver
import glue_peer
from driver import DENSE, ESPALIER, HERE, ROOT, TREE, TREES
from serving import PEERS


def dense_with_head(out):
    """MiniLM as a classifier of two labels; what it says is random."""
    source, folder = bert.minilm_folder(), os.path.join(out, "minilm-sst2")
    target = folder + ".esp"
    if not os.path.exists(target):
        os.makedirs(folder, exist_ok=True)
        for name in ("vocab.txt", "tokenizer_config.json"):
            shutil.copy(source / name, folder)
        tensors = load_file(source / "model.safetensors")
        scale = np.float32(tensors["pooler.dense.weight"].shape[0] ** -.5)
        labels = ["negative", "positive"]
        rng = np.random.default_rng(1)
        tensors["classifier.weight"] = rng.standard_normal((len(labels), tensors["pooler.dense.weight"].shape[0]), np.float32) * scale
        tensors["classifier.bias"] = np.zeros(len(labels), np.float32)
        save_file(tensors, os.path.join(folder, "model.safetensors"))
        config = json.loads((source / "config.json").read_text()) | {"id2label": dict(enumerate(labels))}
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(config, f)
    return driver.convert(folder, target)


class Ours:
    def __init__(self, name, model, a, precision, threads):
        self.name = name
        self.command = [ESPALIER, "glue", model, "--task", "sst2", a.data, "--precision", precision,
                        "--threads", str(threads), "--json", "--order"]

    def turn(self, order):
        done = subprocess.run([*self.command, order], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(driver.last_line(done.stderr))
        answer = json.loads(done.stdout)
        return answer | {"sentences": answer["n"], "padded_tokens": answer["tokens"],
                         "text_seconds": answer["n"] / answer["sentences_per_second"]}

    def stop(self):
        pass


class Peer(driver.Server):
    turn = driver.Server.ask


def programs(a, precision, threads):
    yield Ours(TREE, a.trees, a, precision, threads)
    yield Ours(DENSE, dense_with_head(a.out), a, precision, threads)
    for name in a.peers:
        if precision in PEERS[name]:
            yield Peer(name, [sys.executable, os.path.join(HERE, "glue_peer.py"), "--peer", name, "--data", a.data,
                              "--precision", precision, "--threads", str(threads)])


def measure(programs, order, rounds, label):
    first = {}
    for p in programs:
        try:
            first[p] = p.turn(order)
        except RuntimeError as error:
            print(f"{label}: {p.name}: {error}", file=sys.stderr)
    tree = programs[0]
    if tree not in first:
        return []
    turns = {p: [] for p in first}
    for done in range(rounds):
        for p in turns:
            turns[p].append(p.turn(order))
        if sys.stderr.isatty():
            print(f"\r{label}: round {done + 1} of {rounds} ", end="", file=sys.stderr)
    sentences, base = first[tree]["sentences"], [t["text_seconds"] for t in turns[tree]]
    out = []
    for p, own in turns.items():
        if first[p]["tokens"] != first[tree]["tokens"]:
            print(f"{label}: {p.name} found {first[p]['tokens']} tokens, the tree {first[tree]['tokens']}", file=sys.stderr)
        row = {"program": p.name, "version": own[0].get("version", ""), "variant": own[0].get("variant", ""),
               "tokens": own[0]["tokens"], "padded_tokens": own[0]["padded_tokens"],
               "cosine": own[0].get("cosine", "")}
        for kind in ("text", "ids"):
            seconds = [t[kind + "_seconds"] for t in own if kind + "_seconds" in t]
            figures = [round(sentences / statistics.median(seconds), 1), *driver.paired(seconds, base)] if seconds else [""] * 4
            row |= dict(zip([f"{kind}_per_second", f"{kind}_times_tree", f"{kind}_low", f"{kind}_high"], figures))
        out.append(row)
    return out


def shown(row, kind):
    if row[kind + "_times_tree"] == "":
        return ["", ""]
    return [f"{row[kind + '_per_second']:.0f}", "{:.2f} ({:.2f} to {:.2f})".format(*(row[f"{kind}_{n}"] for n in ("times_tree", "low", "high")))]


def main():
    def words(text):
        return text.split(",")

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True, help="SST-2's dev.tsv")
    ap.add_argument("--trees", default=TREES, help="model file of MiniLM's shape with a head for SST-2")
    ap.add_argument("--precisions", type=words, default=["f32", "bf16", "int8"])
    ap.add_argument("--threads", type=lambda s: [int(n) for n in s.split(",")], default=[1, 2])
    ap.add_argument("--orders", type=words, default=["sorted", "file"])
    ap.add_argument("--peers", type=words, default=glue_peer.PEERS)
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--out", default=os.path.join(ROOT, "build", "peers"), help="folder for the table (Markdown, CSV)")
    a = ap.parse_args()
    if not set(a.peers) <= set(glue_peer.PEERS):
        ap.error(f"--peers takes names of {','.join(glue_peer.PEERS)}")
    os.makedirs(a.out, exist_ok=True)
    a.peers = driver.usable(a.peers)
    rows = []
    for precision in a.precisions:
        for threads in a.threads:
            running = list(programs(a, precision, threads))
            for order in a.orders:
                label = f"{precision}, {threads} thread{'s' * (threads > 1)}, {order}"
                cell = {"precision": precision, "threads": threads, "order": order}
                rows += [cell | r for r in measure(running, order, a.rounds, label)]
            for p in running:
                p.stop()
    if not rows:
        sys.exit("nothing was measured")
    base = os.path.join(a.out, "glue")
    driver.write_csv(base + ".csv", rows)
    titles = ["precision", "threads", "order", "program", "tokens with padding", "sentences/s, text in", "times the tree's (95 %)",
              "sentences/s, ids in", "times the tree's (95 %)"]
    driver.write_markdown(base + ".md", titles, [
        [r["precision"], r["threads"], r["order"], driver.title(r), r["padded_tokens"], *shown(r, "text"), *shown(r, "ids")] for r in rows])
    print(f"written: {base}.md, .csv", file=sys.stderr)


if __name__ == "__main__":
    main()
