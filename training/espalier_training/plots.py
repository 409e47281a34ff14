"""Pictures of a training run: its losses, and how evenly its leaves are used."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4  # panels side by side


def _new_figure(width: float, height: float) -> Figure:
    """Without pyplot: no window, no global state, and saving takes Agg for PNG whatever the environment says."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("plots need matplotlib, which is missing: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: expected a name that ends in .png or .svg")
    return suffix


def _save(figure: Figure, path: str | Path, suffix: str) -> None:
    import matplotlib

    # The same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "espalier"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == ".svg" else None)


def loss_curves(path: str | Path, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> None:
    """Writes losses on a log scale against tokens. series: for each name, tokens [n] and losses [n]."""
    suffix = _suffix(path)
    if not series:
        raise ValueError(f"{path}: expected at least one series of losses, got none")
    for name, (tokens, losses) in series.items():
        if len(tokens) != len(losses):
            raise ValueError(f"{name}: expected a loss for each token count, got {len(losses)} for {len(tokens)}")
    figure = _new_figure(8, 5)
    axes = figure.subplots()
    for name, (tokens, losses) in series.items():
        axes.plot(tokens, losses, label=name, linewidth=1.2, marker="o" if len(tokens) == 1 else None)
    axes.set(title=title, xlabel="tokens", ylabel="loss", yscale="log")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    _save(figure, path, suffix)


def effective_leaves(counts: Sequence[float] | np.ndarray) -> float:
    """exp(entropy) of the counts [leaves]: how many evenly used leaves would spread tokens as much; 0 unused."""
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"leaf counts: expected a row of counts from 0, got shape {list(counts.shape)}")
    used = counts[counts > 0]
    if not len(used):
        return 0.0
    shares = used / used.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def leaf_usage(path: str | Path, layers: Mapping[str, np.ndarray], title: str) -> None:
    """Writes one panel a layer or tree: the share of tokens of each leaf, the most used first.

    layers: for each name, how many tokens reached each leaf [leaves]. The dashed line is even use.
    """
    suffix = _suffix(path)
    if not layers:
        raise ValueError(f"{path}: expected at least one layer, got none")
    columns = min(_COLUMNS, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = _new_figure(max(3.2 * columns, 5.0), 2.8 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, counts) in zip(panels, layers.items()):
        effective = effective_leaves(counts)
        shares = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
        shares = shares / (shares.sum() or 1.0)
        # One shape for all bars: thousands of leaves as single rectangles take minutes.
        axes.stairs(shares, fill=True)
        axes.axhline(1 / max(len(shares), 1), color="black", linestyle="--", linewidth=0.8)
        axes.set_title(f"{name}\nexp(entropy) {effective:.1f} of {len(shares)}", fontsize="medium")
    for axes in panels[len(layers):]:
        axes.set_axis_off()
    figure.suptitle(title)
    figure.supxlabel("leaves, the most used first")
    figure.supylabel("share of tokens")
    _save(figure, path, suffix)
