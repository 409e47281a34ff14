#!/usr/bin/env python3
"""How SentencePiece cuts texts: tests/data/sentencepiece/, made by the package `sentencepiece`.

    python3 tests/scripts/sentencepiece_expectations.py --text README.md docs/*.md --out tests/data/sentencepiece

Needs `pip install sentencepiece==0.2.0`. Models are trained on a small text (NAME.model: as Llama's; with SentencePiece's own
spaces, user-defined pieces and control pieces; without byte fallback) and asked for the ids of sentences, spaces, scripts,
and of random characters of every kind (NAME.jsonl). unigram.model is there to be refused.
"""
import argparse
import io
import json
import os
import random

import sentencepiece

TEXTS = [
    "", " ", "  ", "a", " a", "  a", "a ", "a  b", " a  b  ", "Once upon a time, there was a little dog.", "\u2581", "\u2581a", "a\u2581", " \u2581 ", "\u2581\u2581 \u2581",
    "a \u2581", "I'm, you're, we've", "12345678 1 22 333 4444", "line\nline\r\nline\n\n\n  line \n x\t\n\ty", "\n", " \n ", "tab\tand\u00a0no-break\u2003em\u3000wide\u2028line",
    "d\u00e9j\u00e0 vu, \u00fcber, \u0437\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439, \u4f60\u597d\u4e16\u754c", "\U0001f600\U0001f468\u200d\U0001f469 emoji!!!", "e\u0301 combining", "\ufffd", "\ufb01 \u2460 \uff21",
    "<s>", "</s> <unk>", "<0x41><0x0A>", "<|user|>hello<|end|> <|end|>", "<|end|><|end|>x", "<|en<|end|>d|>", "<|user|", "  <|user|>  <|end|>  ", "<mask> <ctrl>",
    "\x00\x01\x7f control", "supercalifragilistic" * 3, "a" * 300, " " * 50 + "x", "espalier" + " " * 20 + "tree", "'" * 7 + "s",
    "The layer alone is timed, in turns, against the dense layer of the same precision.",
]
MODELS = {
    "llama": dict(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
                  split_digits=True, character_coverage=0.99),
    "symbols": dict(model_type="bpe", vocab_size=700, byte_fallback=True, normalization_rule_name="identity",
                    user_defined_symbols=["<|user|>", "<|end|>", "<|end|>x", "\u2581\u2581"], control_symbols=["<mask>", "<ctrl>"]),
    "plain": dict(model_type="bpe", vocab_size=300, normalization_rule_name="identity", add_dummy_prefix=False, bos_id=-1, character_coverage=0.98),
    "unigram": dict(model_type="unigram", vocab_size=150, normalization_rule_name="identity"),
}


def random_texts(count):
    rng = random.Random(1)
    pools = [" ", "   \t\n\u2581", "abcxyzABC", "etaoinshr", "0123456789", "'.,!?-_<|>", "\u00e9\u00df\u0416\u4e2d\u0e01\u0301\U0001f600\u2167\u3000\u00a0\u200d",
             ["tree", "layer", " the", "<|end|>", "<|user|>", " espalier", "model"]]
    one = lambda: rng.choice(rng.choice(pools)) if rng.random() < 0.97 else chr(rng.choice([*range(0xD800), *range(0xE000, 0x20000)]))
    return ["".join(one() for _ in range(rng.randint(1, 40))) for _ in range(count)]


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--text", required=True, nargs="+")
    ap.add_argument("--out", required=True)
    ap.add_argument("--random", type=int, default=120, help="random texts")
    a = ap.parse_args()
    lines = [line for path in a.text for line in open(path, encoding="utf-8").read().split("\n")]
    os.makedirs(a.out, exist_ok=True)
    for name, options in MODELS.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **options)
        with open(f"{a.out}/{name}.model", "wb") as file:
            file.write(model.getvalue())
        if name == "unigram":
            continue
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        with open(f"{a.out}/{name}.jsonl", "w", encoding="utf-8") as file:
            for text in TEXTS + random_texts(a.random):
                ids = processor.encode(text)
                file.write(json.dumps({"text": text, "ids": ids}, ensure_ascii=False, separators=(",", ":")) + "\n")


main()
