#!/usr/bin/env python3
"""What FFN Fusion's metric says of two models, computed from its definition: tests/data/fuse/dependency.json.

    tests/scripts/dependency_expectations.py --shared ../shared --base FOLDER --output tests/data/fuse/dependency.json

The metric (arXiv 2503.18908): h_j(X) = f_j(X) - X is what block j adds to its input, h~_j^i the same in the model
without block i, and M_ij the cosine distance of the two, here the mean over tokens. The encoder is
../shared/models/embed in PyTorch, float32 (its reference.py has the feed-forward layers; --base: the folder of
all-MiniLM-L6-v2 with its embedding tables); the decoder stories260K in NumPy, double precision
(decoder_expectations.py).
"""

import argparse
import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from decoder_expectations import PROMPTS, Llama2c


def distance(a, b):
    """1 - cos, token by token."""
    return 1 - (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def analyse(blocks, sequences, states):
    """states(ids, **without) -> [blocks + 1][tokens, hidden]."""
    matrix, cosine, tokens = np.zeros((blocks, blocks)), np.zeros(blocks), 0
    for ids in sequences:
        whole = states(ids)
        tokens += len(ids)
        for b in range(blocks):
            cosine[b] += (1 - distance(whole[b], whole[b + 1])).sum()
        for i in range(blocks - 1):
            without = states(ids, without_block=i)
            for j in range(i + 1, blocks):
                matrix[i, j] += distance(whole[j + 1] - whole[j], without[j + 1] - without[j]).sum()
    return {"ids": sequences, "dependency": (matrix / tokens).tolist(), "cosine": (cosine / tokens).tolist()}


class Encoder:
    """../shared/models/embed, with blocks or their attention left out."""

    def __init__(self, shared, base):
        sys.path.insert(0, f"{shared}/models")
        from reference import ffn

        self.ffn = ffn
        self.config = json.load(open(f"{shared}/models/embed/config.json", encoding="utf-8"))
        self.w = {k: v.float() for k, v in load_file(f"{shared}/models/embed/model.safetensors").items()}
        tables = load_file(f"{base}/model.safetensors")
        self.w.update({k: v.half().float() for k, v in tables.items()
                       if k.startswith("embeddings.") and k.endswith("embeddings.weight")})
        self.blocks = self.config["num_hidden_layers"]

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.config["layer_norm_eps"])

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def block(self, x, i, attends):
        p, heads = f"encoder.layer.{i}.", self.config["num_attention_heads"]
        if attends:
            q, k, v = (self.linear(x, p + f"attention.self.{n}").view(len(x), heads, -1).transpose(0, 1)
                       for n in ("query", "key", "value"))
            mix = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), -1) @ v
            mix = mix.transpose(0, 1).reshape(len(x), -1)
            x = self.norm(x + self.linear(mix, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        parts = self.config["ffn"][i]
        return self.norm(x + sum(self.ffn(x, self.w, p + f"ffn.{j}.", c, []) for j, c in enumerate(parts)), p + "output.LayerNorm")

    def states(self, ids, without_block=None, without_attention=None):
        w = self.w
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
        x = self.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        states = [x]
        for i in range(self.blocks):
            if i != without_block:
                x = self.block(x, i, i != without_attention)
            states.append(x)
        return [s.double().numpy() for s in states]

    def embedding(self, ids, **without):
        mean = self.states(ids, **without)[-1].mean(0)
        return mean / np.linalg.norm(mean)


def encoder(shared, base):
    model = Encoder(shared, base)
    sequences = list(json.load(open(f"{shared}/models/golden/traces.ids.json", encoding="utf-8")).values())
    result = analyse(model.blocks, sequences, model.states)
    result["without_attention"] = [
        float(np.mean([1 - model.embedding(ids) @ model.embedding(ids, without_attention=i) for ids in sequences]))
        for i in range(model.blocks)]
    return result


def decoder(shared):
    model = Llama2c(f"{shared}/data/llama/stories260K")
    ids = model.encode(" ".join(PROMPTS))[1:]
    sequences = [[model.begin] + ids[start : start + 150] for start in range(0, len(ids), 150)]

    def perplexity(**without):
        loss = 0.0
        for sequence in sequences:
            logits = model.logits(sequence, **without)[:-1]
            top = logits.max(-1)
            loss += (np.log(np.exp(logits - top[:, None]).sum(-1)) + top - logits[np.arange(len(top)), sequence[1:]]).sum()
        return math.exp(loss / sum(len(s) - 1 for s in sequences))

    blocks = len(model.wq)
    result = analyse(blocks, sequences, model.states)
    result["perplexity"] = perplexity()
    result["without_attention"] = [perplexity(without_attention=i) for i in range(blocks)]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    with torch.no_grad():
        result = {"embed": encoder(args.shared, args.base), "stories260K": decoder(args.shared)}
    for name, entry in result.items():
        print(name, np.array_str(np.array(entry["dependency"]), precision=4, suppress_small=True), entry["cosine"],
              entry["without_attention"], sep="\n")
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(json.dumps(result).replace('], "', '],\n"') + "\n")


if __name__ == "__main__":
    main()
