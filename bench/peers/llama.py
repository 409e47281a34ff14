"""Decoders of the Llama family as llama.cpp gets them: weights, a numpy reference, a GGUF file."""
import json
import struct
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0}


class Llama:
    """Weights as float32, [out, in], with rotary pairs 2i and 2i + 1 (llama2.c's order), and the shape's facts."""

    eps, theta = 1e-5, 10000.0

    @classmethod
    def llama2c(cls, path):
        """A file of llama2.c's version 0."""
        m = cls()
        with open(path, "rb") as file:
            m.hidden, m.inner, layers, m.heads, m.kv_heads, m.vocab, m.window = struct.unpack("7i", file.read(28))
            values, place = np.frombuffer(file.read(), np.float32), 0

        def take(*shape):
            nonlocal place
            place += int(np.prod(shape))
            return values[place - int(np.prod(shape)) : place].reshape(shape)

        h, kv = m.hidden, m.hidden // m.heads * m.kv_heads
        m.words = take(m.vocab, h)
        stacks = {name: take(layers, *shape) for name, shape in [
            ("norm1", [h]), ("q", [h, h]), ("k", [kv, h]), ("v", [kv, h]), ("out", [h, h]), ("norm2", [h]), ("gate", [m.inner, h]),
            ("down", [h, m.inner]), ("up", [m.inner, h])]}
        m.norm, m.output = take(h), m.words
        m.layers = [{name: stack[i] for name, stack in stacks.items()} for i in range(layers)]
        return m

    @classmethod
    def folder(cls, folder):
        """A Hugging Face folder."""
        m, config = cls(), json.loads((folder / "config.json").read_text())
        raw = {k: v.astype(np.float32) for k, v in load_file(folder / "model.safetensors").items()}
        m.hidden, m.inner, m.vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
        m.heads, m.window = config["num_attention_heads"], config["max_position_embeddings"]
        m.kv_heads = config.get("num_key_value_heads") or m.heads
        m.eps, m.theta = config["rms_norm_eps"], config.get("rope_theta", 10000.0)

        def neighbours(weight, heads):
            return weight.reshape(heads, 2, -1, m.hidden).swapaxes(1, 2).reshape(weight.shape)

        names = {"norm1": "input_layernorm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.o_proj",
                 "norm2": "post_attention_layernorm", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
        m.layers = [{part: raw[f"model.layers.{i}.{name}.weight"] for part, name in names.items()} for i in range(config["num_hidden_layers"])]
        for layer in m.layers:
            layer["q"], layer["k"] = neighbours(layer["q"], m.heads), neighbours(layer["k"], m.kv_heads)
        m.norm, tied = raw["model.norm.weight"], config.get("tie_word_embeddings")  # of tied ones a file may hold either
        m.words = raw["lm_head.weight" if tied and "lm_head.weight" in raw else "model.embed_tokens.weight"]
        m.output = m.words if tied else raw["lm_head.weight"]
        return m

    @classmethod
    def random(cls, hidden, layers, seed=1):
        """The shape of `espalier bench model --synthetic llama-HIDDEN-LAYERS`, with other random weights."""
        m, rng = cls(), np.random.default_rng(seed)
        m.hidden, m.inner, m.vocab, m.window = hidden, -(-hidden * 8 // 3 // 256) * 256, 32000, 4096
        m.heads = max(1, hidden // 128)
        m.kv_heads = m.heads // 4 if m.heads % 4 == 0 else m.heads

        def matrix(rows, columns):
            return rng.standard_normal((rows, columns), np.float32) * np.float32(columns ** -0.5)

        ones, kv = np.ones(hidden, np.float32), hidden // m.heads * m.kv_heads
        m.layers = [{"norm1": ones, "q": matrix(hidden, hidden), "k": matrix(kv, hidden), "v": matrix(kv, hidden), "out": matrix(hidden, hidden),
                     "norm2": ones, "gate": matrix(m.inner, hidden), "up": matrix(m.inner, hidden), "down": matrix(hidden, m.inner)}
                    for _ in range(layers)]
        m.words, m.norm, m.output = matrix(m.vocab, hidden), ones, matrix(m.vocab, hidden)
        return m


def load(name):
    """llama-H-L (random weights), a llama2.c file or a Hugging Face folder."""
    if name.startswith("llama-"):
        return Llama.random(*(int(n) for n in name.split("-")[1:]))
    return Llama.folder(Path(name)) if Path(name).is_dir() else Llama.llama2c(name)


def reference(m, ids):
    """Logits behind the last id, in double precision."""

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + m.eps) * weight

    def turned(x):  # [tokens, heads, size]
        angles = np.arange(len(ids))[:, None] * m.theta ** (-np.arange(0, x.shape[-1], 2) / x.shape[-1])
        cos, sin, a, b = np.cos(angles)[:, None], np.sin(angles)[:, None], x[..., 0::2], x[..., 1::2]
        return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)

    size, x = m.hidden // m.heads, m.words[ids].astype(np.float64)
    causal = np.tril(np.ones((len(ids), len(ids)), bool))
    for w in m.layers:
        n = norm(x, w["norm1"])
        q, k, v = (((n @ w[part].T).reshape(len(ids), -1, size)) for part in "qkv")
        q, k, v = turned(q), np.repeat(turned(k), m.heads // m.kv_heads, 1), np.repeat(v, m.heads // m.kv_heads, 1)
        scores = np.where(causal, np.einsum("qhs,khs->hqk", q, k) / size ** 0.5, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + np.einsum("hqk,khs->qhs", scores / scores.sum(-1, keepdims=True), v).reshape(len(ids), -1) @ w["out"].T
        n = norm(x, w["norm2"])
        gate = n @ w["gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (n @ w["up"].T)) @ w["down"].T
    return norm(x[-1], m.norm) @ m.output.T


def write_gguf(m, path, precision):
    kind = TYPES[precision]
    if precision == "int8" and (m.inner % 32 or m.hidden % 32):
        raise ValueError("Q8_0 asks for rows of a multiple of 32")
    w = gguf.GGUFWriter(path, "llama")
    w.add_vocab_size(m.vocab)
    w.add_context_length(m.window)
    w.add_embedding_length(m.hidden)
    w.add_block_count(len(m.layers))
    w.add_feed_forward_length(m.inner)
    w.add_head_count(m.heads)
    w.add_head_count_kv(m.kv_heads)
    w.add_rope_dimension_count(m.hidden // m.heads)
    w.add_rope_freq_base(m.theta)
    w.add_layer_norm_rms_eps(m.eps)
    w.add_tokenizer_model("none")  # ids come in

    def matrix(name, values):
        w.add_tensor(name + ".weight", gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)

    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "out": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    matrix("token_embd", m.words)
    w.add_tensor("output_norm.weight", m.norm)
    matrix("output", m.output)
    for i, layer in enumerate(m.layers):
        w.add_tensor(f"blk.{i}.attn_norm.weight", layer["norm1"])
        w.add_tensor(f"blk.{i}.ffn_norm.weight", layer["norm2"])
        for part, name in names.items():
            matrix(f"blk.{i}.{name}", layer[part])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
