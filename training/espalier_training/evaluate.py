"""evaluate: fidelity to the teacher on held-out text, similarity of sentence pairs (STS-B) without fine-tuning."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .checkpoint import load, load_teacher
from .common import compute_type, corpus_of, device_of, say, vocabulary_of, write_json
from .config import Run
from .encoder import Encoder, pool
from .fidelity import fidelity
from .finetune import Encoded, by_length, collate, encode
from .glue import TASKS, Examples, load as load_task, metrics
from .text import Sampler, tokenizer


@torch.no_grad()
def sentence_vectors(model: Encoder, rows: Encoded, device: torch.device, dtype: torch.dtype, batch: int = 128) -> np.ndarray:
    """Mean-pooled, of length 1: [n, H]."""
    out = np.zeros((len(rows.ids), model.shape.hidden), np.float32)
    for which in by_length(rows, batch):
        b = collate(rows, which, device)
        out[which] = F.normalize(pool(model(b.ids, None, b.mask, dtype)[-1], b.mask), dim=1).float().cpu().numpy()
    return out


def zero_shot_similarity(model: Encoder, data: str, tok, longest: int, device: torch.device, dtype: torch.dtype) -> dict | None:
    """STS-B dev by the cosine of the two sentences' vectors; None where the data has no STS-B."""
    task = TASKS["stsb"]
    if not data or not (Path(data) / task.folder).is_dir():
        return None
    dev = load_task(data, task)[1]
    vectors = [sentence_vectors(model, encode(Examples(texts, None, dev.labels), tok, longest), device, dtype)
               for texts in (dev.first, dev.second)]
    return metrics(task, (vectors[0] * vectors[1]).sum(1), dev.labels)


def run(run: Run) -> None:
    device = device_of(run)
    dtype = compute_type(device)
    teacher = load_teacher(run.teacher).to(device)
    is_teacher = run.is_teacher
    student = teacher if is_teacher else load(run.path / "distilled", run.teacher).to(device)
    result = {"name": run.name, "parts": run.parts}
    if not is_teacher:
        sampler = Sampler(corpus_of(run, teacher), device, run.seed)
        result.update(fidelity(student, teacher, sampler.held_out(8192), dtype))
    tok = tokenizer(vocabulary_of(run), teacher.shape.lower_case)
    similarity = zero_shot_similarity(student, run.finetune.data, tok, run.finetune.max_tokens, device, dtype)
    if similarity:
        result["stsb_zero_shot"] = similarity
    write_json(run.path / "evaluate.json", result)
    if not is_teacher:
        say(f"{run.name}: cosine to the teacher {result['cosine']:.4f}; hidden error by layer "
            + " ".join(f"{e:.3f}" for e in result["hidden_error"]))
        for name, used in result["leaves_used"].items():
            say(f"  layer.part.tree {name}: {used:.1f} of {len(result['leaves'][name])} leaves in use (exp of entropy)")
    if "stsb_zero_shot" in result:
        say(f"{run.name}: STS-B dev without fine-tuning: Spearman {100 * result['stsb_zero_shot']['spearman']:.2f}")
