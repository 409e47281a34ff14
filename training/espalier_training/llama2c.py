"""python -m espalier_training.llama2c MODEL.bin TOKENIZER.bin FOLDER: a checkpoint of llama2.c as a Hugging Face folder.

Queries and keys change their order (llama2.c turns component 2i with 2i + 1, Hugging Face i with i + d/2); the scored pieces
become the merges that take the best score first, so tokenizer.json cuts texts as llama2.c does (where no two scores are equal)."""
from __future__ import annotations

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from .decoder import Decoder, DecoderShape
from .llama import config_of

_FIRST_BYTE = 3  # <unk>, begin, end, then the 256 bytes
_SPACE = "▁"


def read_model(path: str | Path) -> Decoder:
    data = Path(path).read_bytes()
    if len(data) < 28:
        raise ValueError(f"{path}: expected a checkpoint of llama2.c, found {len(data)} bytes")
    hidden, inner, layers, heads, kv_heads, vocabulary, window = struct.unpack("7i", data[:28])
    if min(hidden, inner, layers, heads, kv_heads, window) <= 0 or hidden % heads or heads % kv_heads:
        raise ValueError(f"{path}: expected sizes of a model, found {(hidden, inner, layers, heads, kv_heads, vocabulary, window)}")
    values, place = np.frombuffer(data[28:], np.float32), 0
    size, kv = hidden // heads, hidden // heads * kv_heads

    def take(*shape: int) -> torch.Tensor:
        nonlocal place
        count = math.prod(shape)
        if place + count > len(values):
            raise ValueError(f"{path}: expected {place + count} numbers or more, found {len(values)}")
        place += count
        return torch.from_numpy(values[place - count: place].reshape(shape).copy())

    model = Decoder(DecoderShape(hidden, heads, kv_heads, size, window, abs(vocabulary), 1e-5, 10000.0, 1, 1),
                    [inner] * layers, tied=vocabulary > 0)
    halves = lambda w: w.view(-1, size // 2, 2, hidden).transpose(1, 2).reshape(w.shape)
    state = {"model.embed_tokens.weight": take(abs(vocabulary), hidden)}
    for name, shape in (("input_layernorm", (hidden,)), ("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (kv, hidden)),
                        ("self_attn.v_proj", (kv, hidden)), ("self_attn.o_proj", (hidden, hidden)), ("post_attention_layernorm", (hidden,)),
                        ("mlp.gate_proj", (inner, hidden)), ("mlp.down_proj", (hidden, inner)), ("mlp.up_proj", (inner, hidden))):
        for layer, w in enumerate(take(layers, *shape)):
            state[f"model.layers.{layer}.{name}.weight"] = halves(w) if name in ("self_attn.q_proj", "self_attn.k_proj") else w
    state["model.norm.weight"] = take(hidden)
    take(window * size)  # tables of the rotary positions
    if vocabulary < 0:
        state["lm_head.weight"] = take(-vocabulary, hidden)
    if place != len(values):
        raise ValueError(f"{path}: expected {place} numbers, found {len(values)}")
    model.load_state_dict(state)
    return model


def read_pieces(path: str | Path, count: int) -> list[tuple[str, float]]:
    """Of tokenizer.bin: the pieces, a byte as <0xNN>, with their scores."""
    data, place, pieces = Path(path).read_bytes(), 4, []
    while len(pieces) < count:
        if place + 8 > len(data):
            raise ValueError(f"{path}: expected {count} pieces, as the model has, found {len(pieces)}")
        score, length = struct.unpack("fi", data[place: place + 8])
        piece, index = data[place + 8: place + 8 + length], len(pieces)
        place += 8 + length
        if _FIRST_BYTE <= index < _FIRST_BYTE + 256:
            piece = b"<0x%02X>" % (index - _FIRST_BYTE)
        text = piece.decode()
        pieces.append((text.strip() if index < _FIRST_BYTE else text.replace(" ", _SPACE), score))
    return pieces


def tokenizer_json(pieces: list[tuple[str, float]]) -> dict:
    ids: dict[str, int] = {}
    for i, (piece, _) in enumerate(pieces):
        ids.setdefault(piece, i)
    merges = []
    for i, (piece, score) in enumerate(pieces):
        if i >= _FIRST_BYTE + 256:
            merges += [(-score, i, piece[:cut], piece[cut:]) for cut in range(1, len(piece))
                       if piece[:cut] in ids and piece[cut:] in ids]
    begin = pieces[1][0]
    first = {"SpecialToken": {"id": begin, "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [first, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                           "special_tokens": {begin: {"id": begin, "ids": [1], "tokens": [begin]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"},
                                                     {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": pieces[0][0], "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids,
                  "merges": [f"{a} {b}" for _, _, a, b in sorted(merges)]}}


def convert(model: str, tokenizer: str, folder: str) -> None:
    decoder = read_model(model)
    pieces = read_pieces(tokenizer, decoder.shape.vocabulary)
    target = Path(folder)
    target.mkdir(parents=True)
    save_file({n: v.numpy() for n, v in decoder.state_dict().items()}, str(target / "model.safetensors"))
    (target / "config.json").write_text(json.dumps(config_of(decoder), indent=1) + "\n")
    (target / "tokenizer.json").write_text(json.dumps(tokenizer_json(pieces), ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m espalier_training.llama2c MODEL.bin TOKENIZER.bin FOLDER")
    try:
        convert(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
