#!/usr/bin/env python3
"""Makes runtime/tokenizer/unicode_tables.inc by asking the package `tokenizers` about every code point.

    python3 tests/scripts/unicode_tables.py --out runtime/tokenizer/unicode_tables.inc

Needs `pip install tokenizers==0.23.3`. Nothing is taken from a Unicode file or guessed: each fact is what one
step of BertNormalizer or BertPreTokenizer does to the code point, and the combining classes are read off the
order in which NFD puts two marks. The script ends with the differences to utf8proc, where that is installed:
what would be wrong if utf8proc were simply trusted.
"""
import argparse
import ctypes
import ctypes.util
import unicodedata

import tokenizers
from tokenizers import normalizers, pre_tokenizers

CONTROL, WHITESPACE, PUNCTUATION, NONSPACING_MARK, CJK, NORMALIZES, HAS_LOWER_CASE = (1 << i for i in range(7))
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CAPITAL_I_WITH_DOT = 0x130
HANGUL = (0xAC00, 0xD7A4)


def bert_step(**step):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **step}).normalize_str


clean, set_apart = bert_step(clean_text=True), bert_step(handle_chinese_chars=True)
strip, lower = bert_step(strip_accents=True), bert_step(lowercase=True)
split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
nfd = normalizers.NFD().normalize_str


def observe(c):
    """The facts of one code point (combining class apart), its lower case, its decomposition."""
    ch, facts = chr(c), 0
    cleaned = clean("a" + ch + "b")
    words = [word for word, _ in split("a" + ch + "b")]
    if cleaned == "ab":
        facts |= CONTROL
    if words == ["a", "b"]:
        facts |= WHITESPACE
    # Cleaning turns white space into a blank, unless it is a control character and goes away.
    assert cleaned == {CONTROL: "ab", WHITESPACE: "a b"}.get(facts, "a" + ch + "b") or facts == CONTROL | WHITESPACE
    if words == ["a", ch, "b"]:
        facts |= PUNCTUATION
    assert words in (["a", "b"], ["a", ch, "b"], ["a" + ch + "b"])
    if set_apart("a" + ch + "b") == "a " + ch + " b":
        facts |= CJK
    decomposed = nfd(ch)
    if decomposed != ch:
        facts |= NORMALIZES
    elif strip(ch) == "":
        facts |= NONSPACING_MARK
    lowered = lower(ch)
    if lowered != ch:
        facts |= HAS_LOWER_CASE
    return facts, lowered, decomposed


def combining_classes(decomposes):
    """{code point: class} for every code point that NFD moves. Python's own table only names one candidate
    a class; that NFD moves the candidate, and where, is observed."""
    low, high = "\u0334", "\u0345"  # class 1, the lowest, and 240, the highest
    moves = lambda c: nfd(high + chr(c)) != high + chr(c) or nfd(chr(c) + low) != chr(c) + low
    moving = [c for c in SCALARS if c not in decomposes and moves(c)]
    samples = {}
    for c in moving:
        samples.setdefault(unicodedata.combining(chr(c)), chr(c))
    classes = {}
    for c in moving:
        still = [k for k, m in samples.items() if nfd(m + chr(c)) == m + chr(c) and nfd(chr(c) + m) == chr(c) + m]
        assert len(still) == 1, hex(c)
        classes[c] = still[0]
    return classes


def check_assumptions(facts, lowered, classes):
    """What the code in wordpiece.cpp relies on."""
    assert [c for c in SCALARS if len(lowered[c]) != 1] == [CAPITAL_I_WITH_DOT]
    assert lowered[CAPITAL_I_WITH_DOT] == "i\u0307"
    assert facts[0] & CONTROL and facts[0xFFFD] & CONTROL
    for c in classes:  # a mark that is moved is part of a word, and one character of it
        assert not facts[c] & (WHITESPACE | PUNCTUATION | CJK | HAS_LOWER_CASE), hex(c)


def fact_changes(facts):
    changes, last = [], None
    for c in SCALARS:
        if facts[c] != last:
            changes.append("0x%X" % (c << 8 | facts[c]))
        last = facts[c]
    return changes


def lower_case(lowered):
    entries, last = [], None
    for c in SCALARS:
        if lowered[c] == chr(c) or c == CAPITAL_I_WITH_DOT:
            continue
        distance = ord(lowered[c]) - c
        if distance != last:
            entries.append("{0x%X, %d}" % (c, distance))
        last = distance
    return entries


def decompositions(decomposed):
    """(code point << 14 | where its parts begin), and the parts. Hangul syllables are made of theirs by rule."""
    entries, parts = [], []
    for c in SCALARS:
        if decomposed[c] == chr(c) or HANGUL[0] <= c < HANGUL[1]:
            continue
        assert len(decomposed[c]) <= 4 and len(parts) < 1 << 14 and c < 1 << 18
        entries.append("0x%X" % (c << 14 | len(parts)))
        parts += ["0x%X" % ord(part) for part in decomposed[c]]
    entries.append("0x%X" % (0x3FFFF << 14 | len(parts)))
    return entries, parts


def check_hangul(decomposed):
    """The rule in unicode.cpp."""
    for c in range(*HANGUL):
        at = c - HANGUL[0]
        parts = [0x1100 + at // 588, 0x1161 + at % 588 // 28] + ([0x11A7 + at % 28] if at % 28 else [])
        assert decomposed[c] == "".join(map(chr, parts)), hex(c)


def class_changes(classes):
    changes, last = [], 0
    for c in SCALARS:
        if classes.get(c, 0) != last:
            last = classes.get(c, 0)
            changes.append("0x%X" % (c << 8 | last))
    return changes


def wrapped(items, width=108):
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > width:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    return "\n".join(lines + [line])


def ranges(points):
    result = []
    for c in sorted(points):
        if result and result[-1][1] == c - 1:
            result[-1][1] = c
        else:
            result.append([c, c])
    return result


def report_differences(facts, lowered, decomposed, classes):
    path = ctypes.util.find_library("utf8proc")
    if not path:
        return
    lib = ctypes.CDLL(path)
    lib.utf8proc_version.restype = lib.utf8proc_unicode_version.restype = ctypes.c_char_p
    lib.utf8proc_get_property.restype = ctypes.POINTER(ctypes.c_int16)
    print("compared with utf8proc", lib.utf8proc_version().decode(), "Unicode", lib.utf8proc_unicode_version().decode())
    category = {c: lib.utf8proc_category(c) for c in SCALARS}
    buffer, boundary = (ctypes.c_int32 * 32)(), ctypes.c_int(0)

    def parts(c):
        n = lib.utf8proc_decompose_char(c, buffer, 32, 1 << 4, ctypes.byref(boundary))
        return "".join(map(chr, buffer[:n]))

    differing = {
        "control": [c for c in SCALARS if bool(facts[c] & CONTROL) != (category[c] in (26, 27, 29))],
        "punctuation": [c for c in SCALARS if bool(facts[c] & PUNCTUATION) != (12 <= category[c] <= 18)],
        "nonspacing mark": [c for c in SCALARS if decomposed[c] == chr(c)
                            and bool(facts[c] & NONSPACING_MARK) != (category[c] == 6)],
        "lower case": [c for c in SCALARS if lowered[c] != chr(lib.utf8proc_tolower(c))],
        "decomposition": [c for c in SCALARS if decomposed[c] != parts(c)],
        "combining class": [c for c in SCALARS if decomposed[c] == chr(c)
                            and classes.get(c, 0) != lib.utf8proc_get_property(c)[1]],
    }
    for name, points in differing.items():
        shown = " ".join("%X" % a if a == b else "%X-%X" % (a, b) for a, b in ranges(points)[:8])
        print(f"  {name}: {len(points)} differ: {shown}{' …' if len(ranges(points)) > 8 else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    facts, lowered, decomposed = {}, {}, {}
    for c in SCALARS:
        facts[c], lowered[c], decomposed[c] = observe(c)
    classes = combining_classes({c for c in SCALARS if decomposed[c] != chr(c)})
    for c in classes:
        facts[c] |= NORMALIZES
    check_assumptions(facts, lowered, classes)
    check_hangul(decomposed)
    changes, entries, steps = fact_changes(facts), lower_case(lowered), class_changes(classes)
    parted, parts = decompositions(decomposed)
    with open(out, "w", encoding="ascii") as file:
        file.write(f"// Generated by tests/scripts/unicode_tables.py from tokenizers {tokenizers.__version__}. Do not edit.\n")
        file.write("// clang-format off\n")
        file.write("constexpr uint32_t fact_changes[] = {\n" + wrapped(changes) + "\n};\n\n")
        file.write("constexpr LowerCase lower_case[] = {\n" + wrapped(entries) + "\n};\n\n")
        file.write("constexpr uint32_t class_changes[] = {\n" + wrapped(steps) + "\n};\n\n")
        file.write("constexpr uint32_t decompositions[] = {\n" + wrapped(parted) + "\n};\n\n")
        file.write("constexpr char32_t parts[] = {\n" + wrapped(parts) + "\n};\n// clang-format on\n")
    print(f"{len(changes)} changes of facts, {len(entries)} distances to lower case, {len(steps)} changes of classes, "
          f"{len(parted) - 1} decompositions of {len(parts)} parts")
    report_differences(facts, lowered, decomposed, classes)


if __name__ == "__main__":
    main()
