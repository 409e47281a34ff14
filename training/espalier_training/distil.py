"""distil: the student learns its teacher's hidden states and sentence vectors on plain text; leaf routing is frozen.

A decoder learns the next token's probabilities instead of sentence vectors.

Resumable: the state of a run is FOLDER/distil.pt, written beside and renamed. Several GPUs: start it with torchrun.
"""
from __future__ import annotations

import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F

from .checkpoint import load_teacher, load_trees, save_trees
from .common import cache_of, compute_type, corpus_of, device_of, rank, say, vocabulary_of, warn, world, write_json
from .config import Distil, Run
from .decoding import check_decoder, decoder_fidelity, decoder_losses
from .encoder import Encoder, pool
from .fidelity import fidelity, relative_error
from .llama import is_llama, load_llama, save_llama
from .masked import MaskedHead, mask_tokens
from .optimizing import adamw, is_table, take_step
from .plots import leaf_usage, loss_curves
from .progress import Progress
from .stream import Windows, read_stream, written
from .text import Sampler

_SMALL_HIDDEN = 512  # of a decoder; below, a GPU waits for launches, not for arithmetic, and float32 costs nothing
_MOST_TEXTS_COMPARED = 512  # similarities between texts grow with the square


def losses(ours: list[torch.Tensor], theirs: list[torch.Tensor], options: Distil, hidden_weight: float) -> torch.Tensor:
    """ours, theirs: L + 1 times [B, S, H]."""
    hidden = sum(relative_error(a, b) for a, b in zip(ours[1:], theirs[1:])) / (len(ours) - 1)
    a, b = F.normalize(pool(ours[-1]), dim=1), F.normalize(pool(theirs[-1]), dim=1)
    pooled = 1 - (a * b).sum(1).mean()
    a, b = a[:_MOST_TEXTS_COMPARED], b[:_MOST_TEXTS_COMPARED]
    similarity = ((a @ a.T - b @ b.T) ** 2).mean()
    return hidden_weight * hidden + options.pooled * pooled + options.similarity * similarity


def hidden_weight(step: int, steps: int, options: Distil) -> float:
    return options.hidden * (0.1 if step >= steps * (1 - options.closing) and options.closing else 1.0)


def learning_parameters(model: Encoder, options: Distil) -> list[torch.nn.Parameter]:
    """All but embedding tables (unless asked for), heads, and, if asked for, the nodes of neuron trees."""
    for name, parameter in model.named_parameters():
        node = ".in." in name and not options.train_nodes
        parameter.requires_grad_(not (is_table(name) and not options.train_embeddings or node or name.startswith("heads.")))
    return [p for p in model.parameters() if p.requires_grad]


def all_reduce(parameters: list[torch.nn.Parameter]) -> None:
    """One flat sum over the GPUs: a model of some ten million parameters needs no overlap."""
    flat = torch.cat([p.grad.reshape(-1) for p in parameters])
    torch.distributed.all_reduce(flat)
    for p, g in zip(parameters, (flat / world()).split([p.numel() for p in parameters])):
        p.grad.copy_(g.view_as(p))


class Distillation:
    def __init__(self, run: Run):
        self.run, self.options = run, run.distil
        self.device = device_of(run)
        self.dtype = compute_type(self.device)
        torch.manual_seed(run.seed)
        self.masked: MaskedHead | None = None
        self.load()
        self.teacher.to(self.dtype).requires_grad_(False)
        tables = [p for n, p in self.student.named_parameters() if p.requires_grad and n.startswith("embeddings.")]
        others = [p for p in self.parameters if not any(p is t for t in tables)]
        # Rows of words that the text lacks must stay as they are: no decay for tables.
        groups = [{"params": others}] + ([{"params": tables, "weight_decay": 0.0}] if tables else [])
        self.optimizer = adamw(groups, self.device)
        self.micro_steps = max(1, round(self.options.batch_tokens / self.options.micro_tokens / world()))
        self.step_tokens = self.options.micro_tokens * self.micro_steps * world()
        self.steps = max(1, self.options.tokens // self.step_tokens)
        self.step = 0
        self.history: list[dict] = []

    def load(self) -> None:
        """Sets teacher, student, sampler and parameters."""
        run = self.run
        self.teacher = load_teacher(run.teacher).to(self.device)
        self.sampler = Sampler(corpus_of(run, self.teacher), self.device, run.seed)
        self.student = load_trees(run.path / ("fused" if run.fuses else "grown"), run.teacher).to(self.device)
        self.parameters = learning_parameters(self.student, self.options)
        if self.options.masked:
            self.masked = MaskedHead(self.student).to(self.device)
            self.parameters += list(self.masked.parameters())

    # -- state on disk ------------------------------------------------------------------------------------------------
    @property
    def state_file(self):
        return self.run.path / "distil.pt"

    def resume(self) -> None:
        if not self.state_file.exists():
            return
        state = torch.load(self.state_file, map_location=self.device)
        if state["options"] != asdict(self.options):
            raise ValueError(f"{self.state_file}: made with other options of [distil]; delete it to start afresh")
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.masked:
            self.masked.load_state_dict(state["masked"])
        self.step, self.history = state["step"], state["history"]
        warn(f"resuming at step {self.step} of {self.steps}")

    def save(self) -> None:
        if rank():
            return
        part = self.state_file.with_suffix(".part")
        torch.save({"options": asdict(self.options), "student": self.student.state_dict(),
                    "optimizer": self.optimizer.state_dict(), "step": self.step, "history": self.history,
                    "masked": self.masked.state_dict() if self.masked else None}, part)
        os.replace(part, self.state_file)

    # -- training -----------------------------------------------------------------------------------------------------
    def micro_loss(self, index: int) -> torch.Tensor:
        ids = self.sampler.batch(index, self.options.micro_tokens)
        weight = hidden_weight(self.step, self.steps, self.options)
        if self.masked is None:
            with torch.no_grad():
                theirs = self.teacher(ids, dtype=self.dtype)
            return losses(self.student(ids, dtype=self.dtype), self.student.counterparts(theirs), self.options, weight)
        torch.manual_seed(self.run.seed + index)  # so that what is masked resumes as well
        hidden_ids, chosen = mask_tokens(ids, self.sampler.corpus, self.student.shape.vocabulary)
        with torch.no_grad():
            theirs = self.teacher(hidden_ids, dtype=self.dtype)
        ours = self.student(hidden_ids, dtype=self.dtype)
        guessed = self.masked(ours[-1][chosen], self.student.embeddings.word_embeddings.weight)
        return losses(ours, self.student.counterparts(theirs), self.options, weight) + self.options.masked * F.cross_entropy(guessed.float(), ids[chosen])

    def train_step(self) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        for micro in range(self.micro_steps):
            index = (self.step * self.micro_steps + micro) * world() + rank()
            loss = self.micro_loss(index) / self.micro_steps
            loss.backward()
            total += loss.detach()
        if world() > 1:
            all_reduce(self.parameters)
        take_step(self.optimizer, self.parameters, self.options.learning_rate, self.step, self.steps,
                  int(self.options.warmup * self.steps))
        self.step += 1
        return total

    def evaluate(self) -> dict:
        result = fidelity(self.student, self.teacher, self.sampler.held_out(8192), self.dtype)
        error = result["hidden_error"][-1]
        self.history.append({"tokens": self.step * self.step_tokens, "cosine": result["cosine"], "last_layer_error": error})
        warn(f"{self.run.name}: {self.step * self.step_tokens / 1e6:.0f} M tokens, cosine {result['cosine']:.4f}, "
             f"last layer's error {error:.3f}")
        return result

    def train(self) -> None:
        self.resume()
        every = max(1, self.options.evaluate_tokens // self.step_tokens)
        saved, started, losses_since = time.monotonic(), time.monotonic(), []
        first = self.step
        with Progress(self.steps * self.step_tokens, f"distilling {self.run.name} (tokens)",
                      done=self.step * self.step_tokens) as progress:
            while self.step < self.steps:
                losses_since.append(self.train_step())
                if self.step % 20 == 0 or self.step == self.steps:
                    loss = float(torch.stack(losses_since).mean())
                    if not math.isfinite(loss):
                        raise ValueError(f"step {self.step}: the loss is {loss}; lower distil.learning_rate")
                    progress.advance(len(losses_since) * self.step_tokens, loss=loss)
                    self.history.append({"tokens": self.step * self.step_tokens, "loss": loss})
                    losses_since = []
                if self.step % every == 0 and rank() == 0 and self.step < self.steps:
                    self.evaluate()
                if time.monotonic() - saved > self.options.save_seconds:
                    self.save()
                    saved = time.monotonic()
        self.seconds = time.monotonic() - started
        self.rate = (self.steps - first) * self.step_tokens / self.seconds if self.steps > first else 0.0

    def finish(self) -> None:
        if rank():
            return
        self.save()
        result = self.evaluate()
        folder = self.run.path
        self.save_student(folder / "distilled")
        write_json(folder / "distil.json", {
            "name": self.run.name, "parts": self.run.parts, "tokens": self.steps * self.step_tokens, "seconds": self.seconds,
            "tokens_per_second": self.rate, "device": _device_name(self.device), "torch": torch.__version__,
            **result, "history": self.history})
        curve = [h for h in self.history if "loss" in h]
        loss_curves(folder / "loss.png", {self.run.name: ([h["tokens"] for h in curve], [h["loss"] for h in curve])},
                    f"Distillation of {self.run.name}")
        if result.get("leaves"):
            leaf_usage(folder / "leaves.png", result["leaves"], f"Leaves of {self.run.name} on held-out text")
        say(f"{folder}/distilled: {self.told(result)}, {self.rate / 1e6:.2f} M tokens/s")

    def save_student(self, folder: Path) -> None:
        self.student.own_tables |= self.options.train_embeddings
        save_trees(folder, self.student, vocabulary_of(self.run))

    @staticmethod
    def told(result: dict) -> str:
        return f"cosine {result['cosine']:.4f}, last layer's error {result['hidden_error'][-1]:.3f}"


class DecoderDistillation(Distillation):
    def load(self) -> None:
        run, text = self.run, self.run.text
        check_decoder(run)
        self.teacher, self.student = (load_llama(folder).to(self.device) for folder in (run.teacher, run.path / "fused"))
        shape = self.teacher.shape
        stream = read_stream(text.files, text.separator, Path(run.teacher) / "tokenizer.json", shape.begin, shape.end, text.held_out,
                             cache_of(run))
        if shape.hidden < _SMALL_HIDDEN:
            self.dtype = torch.float32
        length = min(text.max_tokens, shape.positions)
        texts = written(self.teacher, text.written, length, self.dtype, run.seed) if text.written else None
        self.sampler = Windows(stream, texts, length, self.device, run.seed)
        self.parameters = list(self.student.parameters())

    def micro_loss(self, index: int) -> torch.Tensor:
        ids = self.sampler.batch(index, self.options.micro_tokens)
        with torch.no_grad():
            theirs = self.teacher(ids, self.dtype)
        weight = hidden_weight(self.step, self.steps, self.options)
        return decoder_losses(self.student, self.teacher, self.student(ids, self.dtype), self.student.counterparts(theirs),
                              self.options, weight)

    def evaluate(self) -> dict:
        result = decoder_fidelity(self.student, self.teacher, self.sampler.held_out(8192), self.dtype)
        self.history.append({"tokens": self.step * self.step_tokens,
                             **{k: result[k] for k in ("perplexity", "divergence", "same_token")}})
        warn(f"{self.run.name}: {self.step * self.step_tokens / 1e6:.0f} M tokens, {self.told(result)}")
        return result

    def save_student(self, folder: Path) -> None:
        save_llama(folder, self.student, self.run.teacher)

    @staticmethod
    def told(result: dict) -> str:
        return (f"perplexity {result['perplexity']:.3f} (teacher {result['teacher_perplexity']:.3f}), "
                f"divergence {result['divergence']:.4f}, same token {100 * result['same_token']:.1f} %")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def run(run: Run) -> None:
    if (run.path / "distil.json").exists():
        say(f"{run.path}/distil.json: done already")
        return
    if world() > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = device_of(run)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distillation = (DecoderDistillation if is_llama(run.teacher) else Distillation)(run)
    distillation.train()
    distillation.finish()
    if world() > 1:
        torch.distributed.destroy_process_group()
