"""Llama folders read and written: Hugging Face's layout; layers without attention and of their own widths as in the
config.json of NVIDIA's fused models (block_configs)."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.numpy import load_file, save_file

from .decoder import Decoder, DecoderShape

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def is_llama(folder: str | Path) -> bool:
    config = Path(folder) / "config.json"
    return config.is_file() and json.loads(config.read_text()).get("model_type") == "llama"


def _blocks(config: dict, path: Path) -> tuple[list[int], list[bool]]:
    """Widths and attention."""
    layers = config["num_hidden_layers"]
    blocks = config.get("block_configs")
    if blocks is None:
        return [config["intermediate_size"]] * layers, [True] * layers
    if len(blocks) != layers:
        raise ValueError(f"{path}: block_configs: expected one for each of the {layers} layers, found {len(blocks)}")
    return ([b["ffn"].get("intermediate_size") or config["intermediate_size"] for b in blocks],
            [not b["attention"].get("no_op", False) for b in blocks])


def load_llama(folder: str | Path) -> Decoder:
    folder = Path(folder)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: expected {name}, found none")
    path = folder / "config.json"
    c = json.loads(path.read_text())
    for key, wanted in (("model_type", "llama"), ("hidden_act", "silu"), ("rope_scaling", None), ("attention_bias", False),
                        ("mlp_bias", False)):
        if c.get(key, wanted) != wanted:
            raise ValueError(f"{path}: {key}: expected {wanted}, found {c[key]}")
    try:
        heads = c["num_attention_heads"]
        shape = DecoderShape(c["hidden_size"], heads, c.get("num_key_value_heads") or heads,
                             c.get("head_dim") or c["hidden_size"] // heads, c["max_position_embeddings"], c["vocab_size"],
                             c["rms_norm_eps"], c.get("rope_theta", 10000.0), c["bos_token_id"], c["eos_token_id"])
        widths, attention = _blocks(c, path)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]}: missing") from None
    model = Decoder(shape, widths, attention, c.get("ends"), c.get("tie_word_embeddings", False))
    tensors = {n: torch.from_numpy(v).float() for n, v in load_file(folder / "model.safetensors").items()}
    if model.tied and "lm_head.weight" in tensors:  # of tied matrices a file may hold either
        tensors.setdefault("model.embed_tokens.weight", tensors["lm_head.weight"])
    for name, target in model.state_dict().items():
        if name not in tensors or tensors[name].shape != target.shape:
            found = list(tensors[name].shape) if name in tensors else "none"
            raise ValueError(f"{folder}/model.safetensors: {name}: expected {list(target.shape)}, found {found}")
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model


def config_of(model: Decoder) -> dict:
    s = model.shape
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": s.hidden,
        "intermediate_size": max(model.widths), "num_hidden_layers": len(model.widths), "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dimension, "max_position_embeddings": s.positions,
        "vocab_size": s.vocabulary, "rms_norm_eps": s.epsilon, "rope_theta": s.theta, "rope_scaling": None,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": model.tied, "bos_token_id": s.begin, "eos_token_id": s.end}
    if not all(model.attention) or len(set(model.widths)) > 1:
        config["block_configs"] = [{"attention": {"no_op": not a}, "ffn": {"no_op": False, "intermediate_size": w}}
                                   for a, w in zip(model.attention, model.widths)]
    if model.ends != list(range(1, len(model.widths) + 1)):
        config["ends"] = model.ends  # fused, for training alone: the original's layers that ours end with, from 1
    return config


def save_llama(folder: str | Path, model: Decoder, tokenizer: str | Path) -> None:
    """float32, the tokenizer's files taken from the folder `tokenizer`. Beside and then renamed."""
    folder, tokenizer = Path(folder), Path(tokenizer)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({n: v.detach().cpu().contiguous().numpy() for n, v in model.state_dict().items()}, str(part / "model.safetensors"))
    (part / "config.json").write_text(json.dumps(config_of(model), indent=1) + "\n")
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, part / name)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)
