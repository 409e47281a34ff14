"""grow: a tree encoder out of a trained dense one, layer by layer, from the activations of real text."""
from __future__ import annotations

import torch

from .checkpoint import load_teacher, save_trees
from .common import corpus_of, device_of, say, vocabulary_of
from .config import Run
from .encoder import Encoder
from .parts import operations_share, parse_parts
from .progress import Progress
from .text import Sampler
from .trees import grow_parts


def student_of(teacher: Encoder, parts: str) -> Encoder:
    """A copy of the teacher with these parts in every layer (or, "teacher", as it is)."""
    specs = teacher.parts if parts == "teacher" else [parse_parts(parts)] * teacher.shape.layers
    student = Encoder(teacher.shape, specs)
    own = student.state_dict()
    shared = {n: v for n, v in teacher.state_dict().items() if ".ffn." not in n or parts == "teacher"}
    student.load_state_dict({**own, **shared})
    student.own_tables = False
    return student.to(teacher.embeddings.LayerNorm.weight.device)


@torch.no_grad()
def grow(teacher: Encoder, parts: str, batches: list[torch.Tensor], options, seed: int) -> Encoder:
    """batches: ids [B, S] of the text that the trees are grown from."""
    student = student_of(teacher, parts)
    generator = torch.Generator().manual_seed(seed)
    ours = [teacher.embeddings(ids, None, torch.float32) for ids in batches]
    theirs = ours
    flat = lambda xs: torch.cat([x.reshape(-1, x.shape[-1]) for x in xs])
    with Progress(teacher.shape.layers, "growing (layers)") as progress:
        for dense, layer in zip(teacher.encoder.layer, student.encoder.layer):
            theirs = [dense.attended(x, None) for x in theirs]
            wanted = [x + dense.feed_forward(x) for x in theirs]
            if options.inputs == "teacher":
                x, y = flat(theirs), flat(wanted) - flat(theirs)
            else:  # what the student reads, and what would bring it back to the teacher
                ours = [layer.attended(x, None) for x in ours]
                x, y = flat(ours), flat(wanted) - flat(ours)
            grow_parts(list(layer.ffn), dense.ffn[0], x, y, options, generator)
            if options.inputs == "student":
                ours = [layer.output.LayerNorm(x + layer.feed_forward(x)) for x in ours]
            theirs = [dense.output.LayerNorm(x) for x in wanted]
            progress.advance(1)
    return student


def run(run: Run) -> None:
    device = device_of(run)
    teacher = load_teacher(run.teacher).to(device)
    sampler = Sampler(corpus_of(run, teacher), device, run.seed)
    batches, tokens, index = [], 0, 0
    while tokens < run.grow.tokens:
        batches.append(sampler.batch(2 ** 31 + index, min(8192, run.grow.tokens)))
        tokens += batches[-1].numel()
        index += 1
    student = grow(teacher, run.parts, batches, run.grow, run.seed)
    save_trees(run.path / "grown", student, vocabulary=vocabulary_of(run))
    if run.parts != "teacher":
        share = operations_share(parse_parts(run.parts), teacher.parts[0][0].width)
        say(f"{run.path}/grown: {run.parts}, {100 * share:.1f} % of the dense layers' operations, grown from {tokens} tokens")
