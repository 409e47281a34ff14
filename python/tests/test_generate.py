"""Decoders: a tiny llama2.c checkpoint, converted and run by the command and from Python."""

import os
import struct
import subprocess

import numpy as np
import pytest

import espalier

pytestmark = pytest.mark.skipif(
    "ESPALIER_COMMAND" not in os.environ, reason="ESPALIER_COMMAND names no command to convert with"
)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    dim, inner, layers, heads, pairs, window = 32, 48, 2, 4, 2, 64
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", " ", "a", "b", " a", "ab", "é"]
    kv = dim * pairs // heads
    floats = len(pieces) * dim + layers * (2 * dim + 2 * dim * dim + 2 * dim * kv + 3 * dim * inner)
    floats += dim + window * dim // heads
    weights = np.random.default_rng(1).standard_normal(floats).astype("<f4") / 4
    header = struct.pack("<7i", dim, inner, layers, heads, pairs, len(pieces), window)
    (folder / "model.bin").write_bytes(header + weights.tobytes())
    table = struct.pack("<i", max(len(p.encode()) for p in pieces))
    for i, piece in enumerate(pieces):
        table += struct.pack("<fi", -i, len(piece.encode())) + piece.encode()
    (folder / "tokenizer.bin").write_bytes(table)
    file = folder / "decoder.esp"
    command = [os.environ["ESPALIER_COMMAND"], "convert", folder / "model.bin", "--tokenizer", folder / "tokenizer.bin"]
    subprocess.run([*command, "-o", file], check=True, capture_output=True)
    return file


def test_continuations(decoder):
    context = espalier.Context(espalier.Model(decoder))
    written = context.generate("ab", max_tokens=12)
    command = [os.environ["ESPALIER_COMMAND"], "generate", decoder, "--prompt", "ab", "--max-tokens", "12"]
    expected = subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace")
    assert written.text in expected and len(written.ids) <= 12
    assert written.stop in ("max_tokens", "end_token")
    drawn = [context.generate("ab", max_tokens=12, temperature=1.5, seed=s).ids for s in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and any(d != drawn[0] for d in drawn[2:])


def test_listening(decoder):
    context = espalier.Context(espalier.Model(decoder))
    heard = []

    def listen(token, data):
        heard.append((token, data))
        return len(heard) < 3

    options = {"max_tokens": 10, "temperature": 1.0}
    seed = next(s for s in range(99) if len(context.generate("a", seed=s, **options).ids) > 4)
    written = context.generate("a", seed=seed, on_token=listen, **options)
    assert written.stop == "callback" and len(heard) == 3 and written.ids == [token for token, _ in heard]
    assert b"".join(data for _, data in heard).decode(errors="replace") == written.text

    def fail(token, data):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        context.generate("a", seed=seed, on_token=fail, **options)
    with pytest.raises(espalier.Error, match="in use by another call"):
        context.generate("a", seed=seed, on_token=lambda *_: context.generate("b"), **options)
    assert context.perplexity("a b ab " * 20) > 1


def test_encoders_calls_are_refused(decoder):
    with pytest.raises(espalier.Error) as caught:
        espalier.Context(espalier.Model(decoder)).encode(np.zeros(2, np.int32))
    assert caught.value.status == "unsupported"
