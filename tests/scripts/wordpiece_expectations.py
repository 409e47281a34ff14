#!/usr/bin/env python3
"""Makes what the WordPiece tests expect, from BertWordPieceTokenizer of the package `tokenizers`.

    wordpiece_expectations.py --vocab vocab.txt --out tests/data/wordpiece
        cases.jsonl, sweep.txt and sweep_characters.txt, which stand in the repository
    wordpiece_expectations.py --vocab vocab.txt --shared DIR --lines N --output FILE
        every text of the GLUE files under DIR/data/glue and N lines of DIR/data/text/mix_50MB.txt.xz
    wordpiece_expectations.py --vocab vocab.txt --fuzz N [--seed S] --output FILE
        N random texts of mixed scripts, marks, ill-formed bytes and special tokens

FILE is for tests/golden/wordpiece_shared_test.cpp, through ESPALIER_WORDPIECE_EXPECTATIONS.
A line of cases.jsonl or FILE is one JSON object: the text "a" (or "a_hex": bytes that are no UTF-8) and perhaps
"b"; "ids" and "types" without truncation; "cut": {"max_length", "ids", "types"} where truncation changes
them; "plain_special"; "options" where they are not those of an uncased BERT; "vocabulary": "characters" where
every character is a token, so that the ids spell out the normalised text.
The sweeps: see sweep(). Needs `pip install tokenizers==0.23.3`.
"""
import argparse
import itertools
import json
import lzma
import os
import random
import struct

from tokenizers import BertWordPieceTokenizer

GLUE = {  # file under data/glue: columns that hold the text
    "CoLA/dev.tsv": [3],
    "SST-2/dev.tsv": ["sentence"],
    "MRPC/dev.tsv": ["#1 String", "#2 String"],
    "STS-B/dev.tsv": ["sentence1", "sentence2"],
    "RTE/dev.tsv": ["sentence1", "sentence2"],
    "WNLI/dev.tsv": ["sentence1", "sentence2"],
    "QNLI/dev.tsv": ["question", "sentence"],
    "MNLI/dev_matched.tsv": ["sentence1", "sentence2"],
    "QQP/train_partial_23k.tsv.xz": ["question1", "question2"],
}

SENTENCES = [
    "The gardener ties each young branch to the wire before the first frost.",
    "Don't panic: it's only 3.5% (or $1,299.99) — isn't it?",
    "Visit https://example.org/a_b?c=d&e=f#g, then e-mail me@example.org!",
    "Unaffable antidisestablishmentarianism; pneumonoultramicroscopicsilicovolcanoconiosis.",
    "Ça alors, le garçon naïf a mangé une crème brûlée à Besançon.",
    "Die Straße ist groß, die STRASSE IST GROẞ; Fußgänger überqueren sie.",
    "İstanbul'da ılık bir İYİ gün, DIŞARI çıktık.",
    "ΟΔΥΣΣΕΥΣ καὶ Ὀδυσσεύς, ΣΑΣ σας ς",
    "Съешь же ещё этих мягких французских булок. Йод, ЁЛКА.",
    "今天天气很好。我们去公園吧! 東京タワー ひらがな カタカナ が ガ",
    "𠀀𠮷𪜀𫝀𫠠𬺰𮯠 豈 丽 㐀䶿 ",
    "안녕하세요 세계, 각 힣 ᄀ가 가",
    "สวัสดีชาวโลก ภาษาไทยน้ำ",
    "السَّلَامُ عَلَيْكُمْ، مَرْحَبًا بالعالم؟",
    "हिन्दी में क्षत्रिय और ज़िंदगी। தமிழ் বাংলা",
    "שָׁלוֹם עוֹלָם",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ ☺︎ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ok",
    "Ⅷ ⅷ ½ ² ﬁ ﬀ Å Å Ω K ſ ǅ ǆ Ǆ ŉ ΐ",
    "a\u0301\u0323 a\u0323\u0301 q\u0307\u0323 \u0301start \u0345\u0334x",
    "x\u302e\u0334\u302f\u302ey z\U0001d165\U0001d16d\U0001d166w \u1b44\u1baa\u302f ",
    "\u0958 \u0340\u0341\u0343\u0344 \u0f73\u0f75\u0f81 \U00011938 \U0001d15e \ufb2c",
    "tab\there\nline\r\nfeed\x0bvertical\x0cform\x1cfile\x1fus\x7fdel\x85nel",
    "nul\x00inside \x00 \x01\x02\x03 soft\xadhyphen zero\u200bwidth\u200djoin\ufeffbom",
    "\u00a0no\u1680break\u2003em\u2028line\u2029para\u202fnarrow\u205fmath\u3000wide\u180emvs",
    "private \ue000 \uf8ff \U000f0000 \U0010fffd unassigned \u0378 \U000e0fff \ufdd0 \uffff \U0010ffff",
    "tag\U000e0001\U000e0041 selector\ufe0e\ufe0f\U000e0100 \ufffd replacement\ufffdin",
    "$+<=>^`|~ ¢£¥€ ©®™ §¶ «» ‘’“” – — … ‽ ⸘ ⹃ ⁂ 。、「」 ·•",
    "new case: \u1c89 \ua7cb \ua7cc \ua7da \U00010d50 \U00016ea0 \U00010400 \U0001e900",
    "[SEP] [CLS]x[MASK][PAD] [sep] [UNK]ed [ SEP ] [[SEP]] [SEP",
    "e[MASK]\u0301 中[SEP]文 ##ing #ing ## [unused1] [MASK]\ufffd[MASK]",
    "", " ", "\t\n \u3000", "\x00", "\u0301", "\ufffd", "[SEP]", "a", "##s",
]

PAIRS = [
    ("How tall is the old mill?", "The mill stands eleven metres tall, not counting the vane."),
    ("A very long first text that goes on and on, well past the other one, until it stops.", "Short."),
    ("One two three four", "five six seven eight"),
    ("", ""), ("", "only the second"), ("only the first", ""),
    ("[SEP] in [MASK]", "and [SEP] here"), ("\x00", " \t"),
    ("Grüße aus 東京", "ΣΑΣ 👍🏽 e\u0301"),
]

ILL_FORMED = [
    b"caf\xe9 latin1", b"\xff\xfe", b"a\xc0\x80b", b"a\xe0\x80\x80b", b"a\xed\xa0\x80b", b"a\xf4\x90\x80\x80b",
    b"cut \xe4\xb8", b"cut \xf0\x9f\x91", b"cut \xf0\x9f", b"cut \xc3", b"\xe4\xb8a \xf0\x9f\x91b \xc3c",
    b"\x80\xbf mid\x80dle", b"\xf8\x88\x80\x80\x80", b"\xe1\xa0\xc3\xa9 \xf1\x80\x80\xe4\xb8\xad",
    b"[SEP\xff] \xe4[SEP]\xb8 [MASK]\x80", b"\xed\x9f\xbf\xee\x80\x80 \xf0\x8f\xbf\xbf \xc1\xbf",
]

OTHER_OPTIONS = [
    dict(lowercase=False), dict(strip_accents=False), dict(lowercase=False, strip_accents=True),
    dict(clean_text=False), dict(handle_chinese_chars=False),
    dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False),
]


def long_words():
    for letter in ("a", "é", "e\u0301", "ß", "İ", "\u302e", "中", "𝔸", "ก", "-"):
        for count in (99, 100, 101):
            yield "x " + letter * count + " y"
    yield "a" * 10000
    yield "z" * 99 + "\u0301" * 500 + "z"
    yield "ab" * 50 + "\u0301\x00\u200b"
    yield "a" + "\u0301\u0323\u0334" * 2000 + "b"
    yield "a" + "\u302e\u302f\u0334" * 33 + "b"
    yield "a" + "\u302e\u302f\u0334" * 4000 + "b c"
    yield "\u0e01" * 5000 + " and after"


SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def character_id(c):
    return 5 + 2 * (c if c < 0xD800 else c - 0x800)


def character_vocabulary():
    vocabulary = {token: i for i, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))}
    for c in SCALARS:
        vocabulary[chr(c)] = character_id(c)
        vocabulary["##" + chr(c)] = character_id(c) + 1
    return vocabulary


class Package:
    def __init__(self, vocabulary, name=None):
        self.vocabulary, self.name, self.tokenizers = vocabulary, name, {}

    def tokenizer(self, options, plain_special):
        key = (json.dumps(options, sort_keys=True), plain_special)
        if key not in self.tokenizers:
            tokenizer = BertWordPieceTokenizer(self.vocabulary, **{"lowercase": True, **options})
            tokenizer._tokenizer.encode_special_tokens = plain_special
            self.tokenizers[key] = tokenizer
        return self.tokenizers[key]

    def case(self, a, b=None, max_length=None, plain_special=False, options={}):
        """One line of an expectation file. `a` may be bytes."""
        line = {"a_hex": a.hex()} if isinstance(a, bytes) else {"a": a}
        text = a.decode("utf-8", errors="replace") if isinstance(a, bytes) else a
        if b is not None:
            line["b"] = b
        tokenizer = self.tokenizer(options, plain_special)
        whole = tokenizer.encode(text, b)
        line.update(ids=whole.ids, types=whole.type_ids)
        if max_length is not None and len(whole.ids) > max_length:
            tokenizer.enable_truncation(max_length, strategy="longest_first")
            cut = tokenizer.encode(text, b)
            tokenizer.no_truncation()
            line["cut"] = {"max_length": max_length, "ids": cut.ids, "types": cut.type_ids}
        if plain_special:
            line["plain_special"] = True
        if options:
            line["options"] = options
        if self.name:
            line["vocabulary"] = self.name
        return line


def cases(package):
    for text in SENTENCES + ILL_FORMED:
        yield package.case(text)
        yield package.case(text, max_length=5)
    for text in long_words():
        yield package.case(text)
    for text in SENTENCES:
        if "[" in text:
            yield package.case(text, plain_special=True)
        for options in OTHER_OPTIONS:
            yield package.case(text, options=options)
    for a, b in PAIRS:
        yield package.case(a, b)
        for max_length in range(3, 40):
            yield package.case(a, b, max_length)
        for max_length in (2, 3, 6):
            yield package.case(a, max_length=max_length)
    for n1 in range(9):  # every way for two lengths to meet a limit
        for n2 in range(9):
            for max_length in range(3, 18):
                line = package.case("one " * n1, "two " * n2, max_length)
                if "cut" in line:
                    yield line


def character_cases(package):
    """What shows only where no character is unknown: how marks are ordered, how ill-formed bytes are counted."""
    for text in SENTENCES:
        yield package.case(text)
    for text in ILL_FORMED:
        yield package.case(text, options=dict(clean_text=False))
    barrier = "\u0488\u0489\u0f35\U0001d17b\u0903\u093e\u0b56\u1dfb\u302e\u20dd\u0300\u05bf\u200d\u0345\u07fd\u1abf\u1715"
    for c in barrier:
        yield package.case("a\u302e\u1b44" + c + "\u1b44\U0001d16d\u302f" + c + "\u1baa")
    for letter in ("\u302e", "a\u1b44\u302e", "İ", "\U0001d15e"):
        for count in (33, 34, 49, 50, 51, 99, 100, 101):
            yield package.case(letter * count)


def fnv1a(state, data):
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state


def sweep(package):
    """Every scalar value c as "a" + c + "b" and alone. A line is `first-block blocks hash`: so many blocks of
    256 code points share that FNV-1a hash of their ids (without [CLS] and [SEP], each text followed by -1, as
    little-endian int32). For the sake of equal blocks, character_id(c) and its successor are hashed as -2 and -3."""
    tokenizer = package.tokenizer({}, False)
    runs = []
    for block in range(0x1100):
        points = [c for c in range(block << 8, (block + 1) << 8) if not 0xD800 <= c < 0xE000]
        texts = [text for c in points for text in ("a" + chr(c) + "b", chr(c))]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        value = 0xCBF29CE484222325
        for i, encoding in enumerate(encodings):
            own = {character_id(points[i // 2]): -2, character_id(points[i // 2]) + 1: -3}
            ids = [own.get(x, x) for x in encoding.ids] + [-1]
            value = fnv1a(value, struct.pack("<%di" % len(ids), *ids))
        if runs and runs[-1][2] == value:
            runs[-1][1] += 1
        else:
            runs.append([block, 1, value])
    return runs


def write_sweep(path, package):
    runs = sweep(package)
    with open(path, "w", encoding="ascii") as file:
        file.writelines("%x %d %016x\n" % tuple(run) for run in runs)
    print(f"{path}: {len(runs)} runs of blocks")


def glue_texts(folder):
    for name, columns in GLUE.items():
        opener = lzma.open if name.endswith(".xz") else open
        with opener(os.path.join(folder, name), "rt", encoding="utf-8", newline="\n") as file:
            rows = (line.rstrip("\r\n").split("\t") for line in file)
            if isinstance(columns[0], str):
                header = next(rows)
                columns = [header.index(column) for column in columns]
            for row in rows:
                if len(row) > max(columns):
                    yield tuple(row[column] for column in columns)


def text_lines(path, count):
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            if count == 0:
                return
            if line.strip():
                count -= 1
                yield (line.rstrip("\n"),)


def random_text(rng):
    """A mixture that meets every rule often: letters of many scripts, marks in any order, anything at all."""
    pools = [
        lambda: chr(rng.randrange(0x20, 0x7F)), lambda: rng.choice("aeiounrst lmk"), lambda: rng.choice(" \t\n.,-'"),
        lambda: chr(rng.randrange(0x00, 0x250)), lambda: chr(rng.randrange(0x300, 0x370)),
        lambda: chr(rng.randrange(0x370, 0x600)), lambda: chr(rng.randrange(0x600, 0x1100)),
        lambda: chr(rng.randrange(0x1E00, 0x2100)), lambda: chr(rng.randrange(0xAC00, 0xD7A4)),
        lambda: chr(rng.randrange(0x4E00, 0xA000)), lambda: chr(rng.choice((0x302E, 0x302F, 0x1D165, 0x1D166, 0x1D16D))),
        lambda: chr(rng.choice((0x8D4, 0x1B44, 0x1BAA, 0xA953, 0x1DFB, 0x1E000, 0x1E944, 0x345, 0x334, 0xFFFD, 0))),
        lambda: chr(rng.randrange(0x1D100, 0x1D200)), lambda: chr(rng.randrange(0x10000, 0x20000)),
        lambda: chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))),
        lambda: rng.choice(("[SEP]", "[MASK]", "[CLS]", "[", "]", "##", "[UNK]", "[PAD")),
        lambda: rng.choice(("ing", "tion", "token", "the", "über", "straße", "ΣΑΣ", "ização")),
    ]
    chosen = rng.sample(pools, rng.randrange(1, 6))
    return "".join(rng.choice(chosen)() for _ in range(rng.choice((3, 8, 20, 40, 120))))


def fuzz_cases(packages, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        a = random_text(rng)
        b = random_text(rng) if rng.random() < 0.3 else None
        if rng.random() < 0.2:  # break some bytes
            a = bytearray(a.encode())
            for _ in range(rng.randrange(1, 4)):
                a[rng.randrange(len(a))] = rng.randrange(256)
            a = bytes(a)
        options = rng.choice(OTHER_OPTIONS) if rng.random() < 0.2 else {}
        yield rng.choice(packages).case(a, b, rng.randrange(3, 60), rng.random() < 0.1, options)


def write_lines(path, lines):
    count = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            count += 1
    print(f"{path}: {count} lines")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", required=True)
    parser.add_argument("--out", help="the folder of the data that stands in the repository")
    parser.add_argument("--shared", help="folder that holds data/glue and data/text")
    parser.add_argument("--lines", type=int, default=20000)
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output")
    options = parser.parse_args()
    package = Package(options.vocab)
    characters = Package(character_vocabulary(), "characters") if options.out or options.fuzz else None
    if options.out:
        lines = itertools.chain(cases(package), character_cases(characters))
        write_lines(os.path.join(options.out, "cases.jsonl"), lines)
        write_sweep(os.path.join(options.out, "sweep.txt"), package)
        write_sweep(os.path.join(options.out, "sweep_characters.txt"), characters)
    if options.shared:
        texts = list(glue_texts(os.path.join(options.shared, "data/glue")))
        texts += text_lines(os.path.join(options.shared, "data/text/mix_50MB.txt.xz"), options.lines)
        write_lines(options.output, (package.case(*text, max_length=128) for text in texts))
    if options.fuzz:
        write_lines(options.output, fuzz_cases((package, characters), options.fuzz, options.seed))


if __name__ == "__main__":
    main()
