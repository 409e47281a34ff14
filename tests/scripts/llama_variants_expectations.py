#!/usr/bin/env python3
"""What small Llamas of unlike configurations answer: tests/data/llama_variants.json.

    tests/scripts/llama_variants_expectations.py > tests/data/llama_variants.json

By the package `transformers` (4.46.3, float32; with PyTorch 1.13.1). The weights follow from the tensors' names, so
that the test makes the same ones.
"""

import json
import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

BASE = dict(
    model_type="llama", hidden_act="silu", hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=8, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=1,
    eos_token_id=2, tie_word_embeddings=False,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
VARIANTS = {
    "plain": {},
    "theta": dict(rope_theta=500.0),
    "heads wider than hidden / heads": dict(head_dim=12),
    "heads narrower than hidden / heads": dict(head_dim=2),
    "attention bias": dict(attention_bias=True),
    "mlp bias": dict(mlp_bias=True),
    "linear": dict(rope_scaling=dict(type="linear", factor=4.0)),
    "llama3": dict(rope_scaling=LLAMA3, head_dim=24),
    "llama3, uneven": dict(rope_scaling=dict(LLAMA3, factor=32.0, low_freq_factor=0.7, high_freq_factor=2.5), head_dim=16, rope_theta=300.0),
    "all": dict(rope_scaling=LLAMA3, head_dim=16, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, num_key_value_heads=1),
}
PLACES = [0, 1, 17, 63, 64, 119]


def values(number, name, shape):
    count = torch.Size(shape).numel()
    v = torch.tensor([((i * 7919 + number * 104729 + i * i) % 127 - 63) / 128 for i in range(count)], dtype=torch.float32)
    return (1 + v / 2 if "norm" in name else v).reshape(shape)


def run(changes):
    config = dict(BASE, **changes)
    model = LlamaForCausalLM(LlamaConfig(**config)).float().eval()
    tensors = {k: v for k, v in model.state_dict().items() if not (config["tie_word_embeddings"] and k == "lm_head.weight")}
    model.load_state_dict({k: values(i, k, tensors[k].shape) for i, k in enumerate(sorted(tensors))}, strict=False)
    model.tie_weights()
    random.seed(4)
    ids = [random.randrange(8) for _ in range(PLACES[-1] + 1)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    return dict(config=config, shapes={k: list(v.shape) for k, v in sorted(tensors.items())}, ids=ids,
                logits={p: [round(v, 6) for v in logits[p].tolist()] for p in PLACES})


print(json.dumps({name: run(changes) for name, changes in VARIANTS.items()}, separators=(",", ":")))
