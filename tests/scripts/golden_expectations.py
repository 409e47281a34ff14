"""Writes tests/data/golden/minilm-trees.jsonl: what the shipped 8-bit model must answer, by PyTorch.

  python tests/scripts/golden_expectations.py --checkpoint DIR --reference reference.py [--out FILE]

The checkpoint is the one the shipped file was converted from (models/README.md says how it is made); reference.py is the
plain PyTorch, float32, nobody's fast path, beside the tree checkpoints. Every sentence is asked of head sst2, sentences
that follow each other, as pairs, of head mrpc. The weights are rounded here by the rule of docs/format.md, independently of the C++ converter: turned, one scale a row =
absmax / 127, round to nearest even; position and type embeddings and leaf biases to float16; node rows and vectors as they
are. Needs torch, safetensors and tokenizers.
"""
import argparse
import importlib.util
import json
import os

import torch
from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
TRACED = (0, 7, 19)  # sentences whose hidden states are kept
LONGEST_PAIR = 400  # characters: long texts are asked alone, and the file stays small


def rounded_rows(w):
    scale = w.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, torch.round(w / scale) * scale, w)  # torch.round: half to even


def rotation(n):
    """The matrix of docs/format.md, or None where rows of this length stay as they are."""
    span = 1
    while span < 16 and n % (32 * span) == 0:
        span *= 2
    if span == 1 or n > 4096:
        return None
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < span:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)], 0)
    blocks = n // (16 * span)
    reflection = torch.eye(blocks, dtype=torch.float64) - (2 / blocks if blocks > 2 else 0)
    return torch.kron(reflection, torch.kron(hadamard / span ** 0.5, torch.eye(16, dtype=torch.float64)))


def rounded_turned(w, axis):
    """Rounded by rows of the last axis, after a rotation along `axis`; and turned back."""
    r = rotation(w.shape[axis])
    if r is None:
        return rounded_rows(w)
    turn = lambda x: (x.double().movedim(axis, -1) @ r).movedim(-1, axis)
    return turn(rounded_rows(turn(w).float())).float()


def as_shipped(name, w):
    if w.dim() == 1 or name.endswith(("node.weight", "node.threshold", "leaf.up.bias")):
        return w
    if "position_embeddings" in name or "token_type_embeddings" in name or name.endswith("leaf.down.bias"):
        return w.half().float()
    if name.startswith("heads.") or "word_embeddings" in name:
        return rounded_rows(w)
    return rounded_turned(w, -2 if name.endswith("leaf.down.weight") else -1)


def logits(weights, head, states):
    """docs/checkpoints.md: mean over tokens, tanh between two layers."""
    layer = lambda x, name: x @ weights[f"heads.{head}.{name}.weight"].T + weights[f"heads.{head}.{name}.bias"]
    return layer(torch.tanh(layer(states.mean(0), "dense")), "out")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--checkpoint", required=True)
    ap.add_argument("--reference", required=True)
    ap.add_argument("--sentences", default=os.path.join(HERE, "../data/golden/sentences.txt"))
    ap.add_argument("--out", default=os.path.join(HERE, "../data/golden/minilm-trees.jsonl"))
    a = ap.parse_args()
    spec = importlib.util.spec_from_file_location("reference", a.reference)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    cfg = json.load(open(os.path.join(a.checkpoint, "config.json")))
    weights = {name: as_shipped(name, w.float()) for name, w in load_file(os.path.join(a.checkpoint, "model.safetensors")).items()}
    tokenizer = BertWordPieceTokenizer(os.path.join(a.checkpoint, "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(512)
    lines = open(a.sentences, encoding="utf8").read().split("\n")[:-1]
    asked = [(text, None) for text in lines] + [pair for pair in zip(lines[::2], lines[1::2]) if len(" ".join(pair)) < LONGEST_PAIR]
    rows = []
    with torch.no_grad():
        for i, (text, second) in enumerate(asked):
            encoded = tokenizer.encode(text, second)
            hidden, routes = reference.encode(cfg, weights, encoded.ids, encoded.type_ids)
            row = {"text": text} | ({} if second is None else {"second": second, "types": encoded.type_ids})
            row |= {"ids": encoded.ids,
                    "logits": [round(v, 6) for v in logits(weights, "sst2" if second is None else "mrpc", hidden[-1]).tolist()],
                    "leaves": [r.squeeze(1).tolist() for r in routes],
                    "layer_means": [[round(v, 5) for v in h.mean(0)[:32].tolist()] for h in hidden]}
            if i in TRACED:  # the first 64 numbers of every token's state, every layer
                row["hidden"] = [[[round(v, 4) for v in t[:64].tolist()] for t in h] for h in hidden]
            rows.append(row)
    with open(a.out, "w", encoding="utf8") as f:
        for row in rows:
            f.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
