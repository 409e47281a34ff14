"""Folders on disk: a Hugging Face BERT model read as the teacher, tree checkpoints (docs/checkpoints.md) read and written."""
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.numpy import load_file, save_file

from .encoder import Encoder, Shape
from .parts import PartSpec, spec_of

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def _shape(config: dict, path: Path) -> Shape:
    try:
        return Shape(config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"],
                     config["max_position_embeddings"], config["type_vocab_size"], config["vocab_size"],
                     config["layer_norm_eps"], config.get("do_lower_case", True), config.get("pooling", "mean"))
    except KeyError as error:
        raise ValueError(f"{path}/config.json: {error.args[0]}: missing") from None


def _read(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: expected {name}, found none")
    tensors = {name: torch.from_numpy(value).float() if value.dtype.kind == "f" else torch.from_numpy(value)
               for name, value in load_file(folder / "model.safetensors").items()}
    return json.loads((folder / "config.json").read_text()), tensors


def load_teacher(folder: str | Path) -> Encoder:
    """A Hugging Face BERT folder (post-norm, erf GELU), its feed-forward layers as parts dense:WIDTH."""
    folder = Path(folder)
    config, tensors = _read(folder)
    if config.get("model_type", "bert") != "bert" or config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"{folder}/config.json: expected a BERT model with gelu, found "
                         f"{config.get('model_type')} with {config.get('hidden_act')}")
    shape = _shape(config, folder)
    model = Encoder(shape, [[PartSpec("dense", config["intermediate_size"])] for _ in range(shape.layers)])
    prefix = "bert." if "bert.embeddings.LayerNorm.weight" in tensors else ""
    renamed = {}
    for name, value in tensors.items():
        name = name[len(prefix):] if name.startswith(prefix) else name
        name = name.replace(".intermediate.dense.", ".ffn.0.up.")
        if ".output.dense." in name and ".attention." not in name:
            name = name.replace(".output.dense.", ".ffn.0.down.")
        renamed[name] = value
    _fill(model, renamed, folder)
    return model


def load_trees(folder: str | Path, base: str | Path | None = None) -> Encoder:
    """A tree checkpoint; embedding tables it lacks come from `base` (a Hugging Face folder), rounded to float16."""
    folder = Path(folder)
    config, tensors = _read(folder)
    layers = len(config["ffn"])
    attention, ends = config.get("attention", [True] * layers), config.get("ends", list(range(1, layers + 1)))
    if not len(attention) == len(ends) == layers == config["num_hidden_layers"]:
        raise ValueError(f"{folder}/config.json: attention, ends, ffn: expected one entry for each of the "
                         f"{config['num_hidden_layers']} layers, found {len(attention)}, {len(ends)} and {layers}")
    model = Encoder(_shape(config, folder), [[spec_of(p) for p in layer] for layer in config["ffn"]], attention, ends)
    if "embeddings.word_embeddings.weight" not in tensors:
        if base is None:
            raise ValueError(f"{folder}: embeddings.word_embeddings.weight: missing, and there is no base folder")
        tables = load_teacher(base).embeddings.state_dict()
        for name in _TABLES:
            tensors.setdefault(f"embeddings.{name}.weight", tables[f"{name}.weight"].half().float())
        model.own_tables = False
    for head in config.get("heads", []):
        model.add_head(head["name"], tuple(head.get("labels", ())))
    if "head" in config:
        model.add_head("classifier", tuple(config["head"].get("labels", ())))
        tensors = {n.replace("classifier.", "heads.classifier.", 1) if n.startswith("classifier.") else n: v
                   for n, v in tensors.items()}
    _fill(model, tensors, folder)
    return model


def load(folder: str | Path, base: str | Path | None = None) -> Encoder:
    config = json.loads((Path(folder) / "config.json").read_text())
    return load_trees(folder, base) if "ffn" in config else load_teacher(folder)


def _fill(model: Encoder, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    for name, target in model.state_dict().items():
        if name not in tensors:
            raise ValueError(f"{folder}/model.safetensors: {name}: missing")
        if tensors[name].shape != target.shape:
            raise ValueError(f"{folder}/model.safetensors: {name}: expected {list(target.shape)}, "
                             f"found {list(tensors[name].shape)}")
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})


def save_trees(folder: str | Path, model: Encoder, vocabulary: str | Path | None = None) -> None:
    """Writes float16, but thresholds and nodes of leaf trees in float32, which decide. Beside and then renamed.

    Embedding tables are written only if they are the model's own."""
    folder, tables = Path(folder), model.own_tables
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {}
    for name, value in model.state_dict().items():
        if not tables and any(f"embeddings.{t}." in name for t in _TABLES):
            continue
        kind = torch.float32 if ".node." in name else torch.float16
        tensors[name] = value.detach().cpu().to(kind).contiguous().numpy()
    save_file(tensors, str(part / "model.safetensors"))
    (part / "config.json").write_text(json.dumps(_config(model), indent=1) + "\n")
    if vocabulary:
        shutil.copyfile(vocabulary, part / "vocab.txt")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(part, folder)


def _config(model: Encoder) -> dict:
    s = model.shape
    config = {
        "architecture": "bert", "hidden_size": s.hidden, "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "max_position_embeddings": s.positions, "type_vocab_size": s.types, "vocab_size": s.vocabulary,
        "layer_norm_eps": s.epsilon, "hidden_act": "gelu", "do_lower_case": s.lower_case, "norm": "post",
        "attention": model.attention, "ffn": [[p.config() for p in layer] for layer in model.parts],
        "pooling": s.pooling,
    }
    if model.ends != list(range(1, s.layers + 1)):
        config["ends"] = model.ends  # fused: the original's layers that ours end with, from 1
    if not model.own_tables:
        config["word_embeddings"] = "not in this file"
    if model.heads:
        config["heads"] = [{"name": name, "kind": "classifier" if head.labels else "regression", "activation": "tanh",
                            **({"labels": list(head.labels)} if head.labels else {})} for name, head in model.heads.items()]
        config["normalise"] = True
    return config
