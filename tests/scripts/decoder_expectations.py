#!/usr/bin/env python3
"""What decoders answer, computed by others: tests/data/decoder/expectations.json, and how they cut texts.

    tests/scripts/decoder_expectations.py --shared ../shared --output tests/data/decoder/expectations.json
    tests/scripts/decoder_expectations.py --shared ../shared --tokens tests/data/decoder/tokens.json

TinyStories-656K: the packages `transformers` (4.33.3, float32) and `tokenizers`. stories260K: a reference in
NumPy, in double precision, written from llama2.c's file format; every token recomputes the whole sequence.
"""

import argparse
import json
import lzma
import math
import struct

import numpy as np

PROMPTS = [
    "Once upon a time", "Once upon a time, there was a little dog", "Lily wanted to", "The sun was hot and",
    "One day, a boy named Tim", "\"Can I play?\" asked", "Mom said", "The cat sat on the", "There were 3 birds in a tree",
    "Ben and Mia are friends.", "It was raining.\nSam was sad", "The big bear", "A girl had a red ball",
    "He ran to the park because", "They saw a frog!", "Grandma baked a cake", "In the forest,", "The end of the day came and",
    "Zed\u00e9 the caf\u00e9 owner \u2603 smiled", "",
]
NEW_TOKENS = 200


class Llama2c:
    """A checkpoint and tokenizer of llama2.c, as run.c reads them."""

    def __init__(self, folder):
        with open(f"{folder}/stories260K.bin", "rb") as file:
            header = struct.unpack("7i", file.read(28))
            values = np.frombuffer(file.read(), np.float32).astype(np.float64)
        self.dim, inner, layers, self.heads, self.kv_heads, vocabulary, self.window = header
        self.size = self.dim // self.heads
        kv = self.kv_heads * self.size
        place = 0

        def take(*shape):
            nonlocal place
            count = math.prod(shape)
            place += count
            return values[place - count : place].reshape(shape)

        self.words = take(abs(vocabulary), self.dim)
        self.attention_norm = take(layers, self.dim)
        self.wq, self.wk, self.wv = take(layers, self.dim, self.dim), take(layers, kv, self.dim), take(layers, kv, self.dim)
        self.wo = take(layers, self.dim, self.dim)
        self.ffn_norm = take(layers, self.dim)
        self.w1, self.w2, self.w3 = take(layers, inner, self.dim), take(layers, self.dim, inner), take(layers, inner, self.dim)
        self.final_norm = take(self.dim)
        take(self.window * self.size)
        assert vocabulary > 0 and place == len(values)
        with open(f"{folder}/tok512.bin", "rb") as file:
            file.read(4)
            self.pieces, self.scores = [], []
            for _ in range(vocabulary):
                score, length = struct.unpack("fi", file.read(8))
                self.scores.append(score)
                self.pieces.append(file.read(length))
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}

    def encode(self, text):
        ids = []
        for character in ([" "] if text else []) + list(text):
            piece = character.encode()
            ids += [self.ids[piece]] if piece in self.ids else [byte + 3 for byte in piece]
        while True:
            best, at = -1e10, None
            for i in range(len(ids) - 1):
                both = self.ids.get(self.pieces[ids[i]] + self.pieces[ids[i + 1]])
                if both is not None and self.scores[both] > best:
                    best, at = self.scores[both], i
            if at is None:
                return [1] + ids
            ids[at : at + 2] = [self.ids[self.pieces[ids[at]] + self.pieces[ids[at + 1]]]]

    @staticmethod
    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def logits(self, ids, **without):
        return self.norm(self.states(ids, **without)[-1], self.final_norm) @ self.words.T

    def states(self, ids, without_block=None, without_attention=None):
        """Hidden states in front of the first block and behind each."""
        norm = self.norm
        tokens, half = len(ids), self.size // 2
        angle = np.arange(tokens)[:, None, None] * 10000.0 ** (-np.arange(half) / half)

        def turn(x):
            a, b = x[..., 0::2], x[..., 1::2]
            out = np.empty_like(x)
            out[..., 0::2] = a * np.cos(angle) - b * np.sin(angle)
            out[..., 1::2] = a * np.sin(angle) + b * np.cos(angle)
            return out

        x = self.words[ids]
        states = [x]
        mask = np.triu(np.full((tokens, tokens), -np.inf), 1)
        for l in range(len(self.wq)):
            if l == without_block:
                states.append(x)
                continue
            y = norm(x, self.attention_norm[l])
            q = turn((y @ self.wq[l].T).reshape(tokens, self.heads, self.size))
            k = turn((y @ self.wk[l].T).reshape(tokens, self.kv_heads, self.size))
            v = (y @ self.wv[l].T).reshape(tokens, self.kv_heads, self.size)
            k, v = (np.repeat(m, self.heads // self.kv_heads, axis=1) for m in (k, v))
            scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.size) + mask
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            if l != without_attention:
                x = x + np.einsum("hqk,khd->qhd", scores, v).reshape(tokens, self.dim) @ self.wo[l].T
            y = norm(x, self.ffn_norm[l])
            gate = y @ self.w1[l].T
            x = x + (gate / (1 + np.exp(-gate)) * (y @ self.w3[l].T)) @ self.w2[l].T
            states.append(x)
        return states

    begin, end, name = 1, 1, "stories260K"


class Transformers:
    def __init__(self, folder):
        import tokenizers
        import torch
        import transformers

        self.torch = torch
        self.model = transformers.LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        self.tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.window = self.model.config.max_position_embeddings

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def logits(self, ids):
        with self.torch.no_grad():
            return self.model(self.torch.tensor([ids])).logits[0].double().numpy()

    begin, end, name = 1, 2, "TinyStories-656K"


def continuation(model, ids):
    new = []
    while len(new) < NEW_TOKENS:
        token = int(model.logits(ids + new)[-1].argmax())
        if token == model.end:
            break
        new.append(token)
    return new


def perplexity(model, text):
    ids = model.encode(text)[1:]
    step, loss, count = model.window - 1, 0.0, 0
    for start in range(0, len(ids) - step + 1, step):
        window = [model.begin] + ids[start : start + step]
        logits = model.logits(window)[:-1]
        top = logits.max(-1)
        loss += float((np.log(np.exp(logits - top[:, None]).sum(-1)) + top - logits[np.arange(step), window[1:]]).sum())
        count += step
    return {"bytes": len(text.encode()), "perplexity": math.exp(loss / count), "tokens": count}


def first_lines(text, size):
    """As many whole lines as fit."""
    cut = text.encode()[:size]
    return cut[: cut.rindex(b"\n") + 1].decode()


def describe(model, text):
    return {
        "prompts": [
            {"text": p, "ids": model.encode(p), "continuation": continuation(model, model.encode(p)),
             "logits": model.logits(model.encode(p))[-1][:16].tolist()}
            for p in PROMPTS
        ],
        "perplexity": perplexity(model, text),
    }


def hard_texts():
    """Spaces, special tokens by name, characters without a piece, and random mixtures of all that."""
    specials = ["<|end_story|>", "<|start_story|>", "<unk>", "<s>", "</s>", "<0x0A>", "|>", "<|"]
    odd = ["\u2581", "\u00e9", "e\u0301", "\u4e2d\u6587", "\U0001f600", "\ufffd", "\u00a0", "\t", "\n", "\r\n", "\x00", "  ", "   "]
    words = "Once upon a time there was little dog named Spot. said, \"Hello!\" don't 12 Zq".split()
    texts = specials + odd + [f"a {s} b" for s in specials + odd] + [f"a{s}b" for s in specials + odd]
    random = np.random.default_rng(1)
    for _ in range(200):
        picks = random.integers(0, 3, random.integers(1, 12))
        texts.append("".join((words, odd, specials)[k][random.integers(0, (len(words), len(odd), len(specials))[k])]
                             + (" " if random.integers(0, 2) else "") for k in picks))
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--output")
    what.add_argument("--tokens")
    args = parser.parse_args()
    folder = f"{args.shared}/data/llama"
    if args.tokens:
        models = [Llama2c(f"{folder}/stories260K"), Transformers(f"{folder}/TinyStories-656K-fp32")]
        with open(args.tokens, "w", encoding="utf-8") as file:
            result = {m.name: [{"text": t, "ids": m.encode(t)} for t in hard_texts()] for m in models}
            file.write(json.dumps(result).replace('{"text"', '\n{"text"') + "\n")
        return
    text = lzma.open(f"{folder}/tinystories_train_2MB.txt.xz", "rt", encoding="utf-8", newline="").read()
    result = {
        "stories260K": describe(Llama2c(f"{folder}/stories260K"), first_lines(text, 6000)),
        "TinyStories-656K": describe(Transformers(f"{folder}/TinyStories-656K-fp32"), first_lines(text, 100000)),
    }
    for entry in result.values():
        print(sum(len(p["continuation"]) for p in entry["prompts"]), "tokens,", entry["perplexity"])
    with open(args.output, "w", encoding="utf-8") as file:
        # One prompt a line.
        lines = json.dumps(result).replace('{"text"', '\n{"text"').replace('], "perplexity"', ']\n, "perplexity"')
        file.write(lines + "\n")


if __name__ == "__main__":
    main()
