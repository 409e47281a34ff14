#!/usr/bin/env python3
"""How byte-level tokenizers of Llama-family models cut texts: tests/data/byte_level/, made by the package `tokenizers`.

    python3 tests/scripts/byte_level_expectations.py --text tests/data/golden/sentences.txt --out tests/data/byte_level

Needs `pip install tokenizers==0.23.3`. Three tokenizers are trained on a small text (NAME.json, as in the folders of models:
GPT-2's words, Llama 3's with tokens that merges cannot reach, digits one by one), and asked for the ids of sentences,
contractions, white space, digits, scripts, added tokens, and of random characters of every kind (NAME.jsonl).
"""
import argparse
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
TEXTS = [
    "", " ", "  ", "a", " a", "  a", "a ", "a  b", "Once upon a time, there was a little dog.", "I'm, you're, we've, it's, I'd, she'll, don't",
    "I'M YOU'RE WE'VE IT'S I'D SHE'LL DON'T", "it'\u017f 'RE'ally 'l 'll' 'r 've'", "12345678 1 22 333 4444", "a1b22c333", " 1 2  3   45",
    "\u0663\u0664 \u00b2\u00b3 \u2167 \u00bd \u4e09 \U0001d7d8", "line\nline\r\nline\n\n\n  line \n x\t\n\ty", "\n", "\r\n\r\n", " \n ", "x \n\n  y",
    "tab\tand\u00a0no-break\u2003em\u3000wide\u2028line", "\u0085next\u200bzero", "d\u00e9j\u00e0 vu, \u00fcber, na\u00efve, \u0437\u0434\u0440\u0430\u0432\u0441\u0442\u0432\u0443\u0439, \u4f60\u597d\u4e16\u754c",
    "\U0001f600\U0001f468\u200d\U0001f469 emoji!!!", "...!?;:  --- ((x))\n", "e\u0301 combining", "\ufffd", "<|begin|>hello<|end|> <|end|>", "<|end|><|end|>x", "<|en<|end|>d|>",
    "user<|tool|>call <|tool|>", "<|begin|", "\u0120\u010a printable", "\x00\x01\x7f control", "supercalifragilistic" * 3, "a" * 300, " " * 50 + "x", "'" * 7 + "s",
]


def random_texts(count):
    rng = random.Random(1)
    pools = [" \t\n\r", "abcxyzABC", "0123456789\u0663\u00b2", "'.,!?-_<|>", "\u00e9\u00df\u0416\u4e2d\u0e01\u0301\U0001f600\u2167\u3000\u00a0\u200d", "'strevmld"]
    one = lambda: rng.choice(rng.choice(pools)) if rng.random() < 0.97 else chr(rng.choice([*range(0xD800), *range(0xE000, 0x20000)]))
    return ["".join(one() for _ in range(rng.randint(1, 40))) for _ in range(count)]


def gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), {}


def llama3():
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), {"ignore_merges": True}


def digits():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]), {}


def trained(words, options, lines):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer, tokenizer.decoder = words, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    if options:  # tokens that no merge makes: the whole word is looked up first
        state = json.loads(tokenizer.to_str())
        for word in ("\u0120zqxjkv", "zqxjkv"):
            state["model"]["vocab"][word] = len(state["model"]["vocab"])
        tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken("<|tool|>", normalized=False)])
    begin = tokenizer.token_to_id("<|begin|>")
    template = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", begin)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template]) if options else template
    return tokenizer


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--text", required=True)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    lines = open(a.text, encoding="utf8").read().splitlines() + TEXTS
    for name, kind in (("gpt2", gpt2), ("llama3", llama3), ("digits", digits)):
        tokenizer = trained(*kind(), lines)
        tokenizer.save(os.path.join(a.out, name + ".json"), pretty=False)
        with open(os.path.join(a.out, name + ".jsonl"), "w", encoding="utf8") as file:
            for text in TEXTS + ["a zqxjkv zqxjkvs"] + random_texts(150):
                ids = tokenizer.encode(text).ids
                file.write(json.dumps({"text": text, "ids": ids, "back": tokenizer.decode(ids)}) + "\n")


if __name__ == "__main__":
    main()
