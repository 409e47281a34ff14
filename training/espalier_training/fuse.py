"""fuse: layers without attention, their feed-forward layers fused (FFN Fusion, arXiv 2503.18908), ready to be distilled back.

A layer that loses its attention loses the norm behind it too. The feed-forward layers of a run become one, which reads what
the run's first layer reads and is followed by the last one's norm: `espalier fuse` makes the same of a model file. That their
sum is one wider layer, or one wider forest, is exact; that they no longer read each other's output is what distillation mends.
Decoders (a Llama folder as the teacher) keep the last layer's norm in front of the fused one.
"""
from __future__ import annotations

from dataclasses import replace

import torch

from .checkpoint import load_teacher, load_trees, save_trees
from .common import say, vocabulary_of
from .config import Run
from .decoding import check_decoder, fuse_decoder
from .encoder import Encoder
from .llama import is_llama, load_llama, save_llama
from .parts import PartSpec, make_part


def runs_of(attention: list[bool], how: str) -> list[tuple[int, int]]:
    """First and last layers of what is fused, alone or in a run, from the first layer to the last.

    pairs: a run is a layer with attention and all those without behind it. auto, the paper's: layers without attention, but
    the last of them. none: every layer by itself."""
    runs, layer = [], 0
    while layer < len(attention):
        last = layer
        if how == "pairs" or (how == "auto" and not attention[layer]):
            while last + 1 < len(attention) and not attention[last + 1]:
                last += 1
        if how == "auto" and last > layer:
            last -= 1
        runs.append((layer, last))
        if how == "auto" and not attention[layer] and last + 1 < len(attention) and not attention[last + 1]:
            last += 1  # the one that is left out
            runs.append((last, last))
        layer = last + 1
    return runs


def merged_specs(layers: list[list[PartSpec]]) -> list[tuple[PartSpec, list[tuple[int, int]]]]:
    """The parts of several layers as the fewest: each with the (layer, part) that it is made of."""
    merged: list[tuple[PartSpec, list[tuple[int, int]]]] = []
    for i, parts in enumerate(layers):
        for j, part in enumerate(parts):
            for at, (spec, members) in enumerate(merged):
                if spec.kind == part.kind == "dense":
                    wider = replace(spec, width=spec.width + part.width)
                elif (spec.kind, spec.depth, spec.width) == (part.kind, part.depth, part.width):
                    wider = replace(spec, trees=spec.trees + part.trees)
                else:
                    continue
                merged[at] = (wider, members + [(i, j)])
                break
            else:
                merged.append((part, [(i, j)]))
    return merged


_SUMMED = {"dense": ("down.bias",), "leaf": (), "neuron": ("out.bias",)}


@torch.no_grad()
def merge(parts: list[torch.nn.Module], hidden: int, spec: PartSpec) -> torch.nn.Module:
    """One part that computes the sum of these."""
    out = make_part(hidden, spec)
    states = [p.state_dict() for p in parts]
    for name, target in out.state_dict().items():
        values = [s[name] for s in states]
        if name in _SUMMED[spec.kind]:
            target.copy_(sum(values))
        else:  # [hidden, width] side by side, all others row under row
            target.copy_(torch.cat(values, 1 if name == "down.weight" else 0))
    return out


def attention_without(attention: list[bool], drop: list[int]) -> list[bool]:
    if wrong := [i for i in drop if not 0 <= i < len(attention) or not attention[i]]:
        raise ValueError(f"fuse.drop_attention: expected layers of 0 to {len(attention) - 1} that have attention, found {wrong[0]}")
    return [a and i not in drop for i, a in enumerate(attention)]


@torch.no_grad()
def fuse(model: Encoder, drop: list[int], how: str) -> Encoder:
    layers = list(model.encoder.layer)
    attention = attention_without(model.attention, drop)
    runs = runs_of(attention, how)
    parts = [merged_specs([model.parts[i] for i in range(first, last + 1)]) for first, last in runs]
    fused = Encoder(replace(model.shape, layers=len(runs)), [[spec for spec, _ in p] for p in parts],
                    [attention[first] for first, _ in runs], [model.ends[last] for _, last in runs])
    fused.embeddings.load_state_dict(model.embeddings.state_dict())
    for layer, merged, (first, last) in zip(fused.encoder.layer, parts, runs):
        if layer.attends:
            layer.attention.load_state_dict(layers[first].attention.state_dict())
        layer.output.load_state_dict(layers[last].output.state_dict())
        for at, (spec, members) in enumerate(merged):
            layer.ffn[at].load_state_dict(merge([layers[first + i].ffn[j] for i, j in members], model.shape.hidden, spec).state_dict())
    for name, head in model.heads.items():
        fused.add_head(name, head.labels)
        fused.heads[name].load_state_dict(head.state_dict())
    fused.own_tables = model.own_tables
    return fused


def _run_decoder(run: Run) -> None:
    check_decoder(run)
    model = load_llama(run.teacher)
    attention = attention_without(model.attention, run.fuse.drop_attention)
    fused = fuse_decoder(model, runs_of(attention, run.fuse.runs), attention)
    save_llama(run.path / "fused", fused, run.teacher)
    say(f"{run.path}/fused: from {run.teacher}: {len(fused.widths)} layers, {sum(fused.attention)} with attention")


def run(run: Run) -> None:
    if is_llama(run.teacher):
        return _run_decoder(run)
    if not run.fuses:
        raise ValueError("fuse.drop_attention: expected the layers that lose their attention, found none")
    if run.parts == "teacher" and not run.fuse.source:
        source, model = run.teacher, load_teacher(run.teacher)
        model.own_tables = False
    else:
        source = run.path / (run.fuse.source or "grown")
        model = load_trees(source, run.teacher)
    fused = fuse(model, run.fuse.drop_attention, run.fuse.runs)
    save_trees(run.path / "fused", fused, vocabulary_of(run))
    say(f"{run.path}/fused: from {source}: {fused.shape.layers} layers, {sum(fused.attention)} with attention")
