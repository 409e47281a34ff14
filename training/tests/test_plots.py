import math
import sys

import numpy as np
import pytest

from espalier_training import plots

LOSSES = {"train": ([0, 1000, 2000], [10.0, 3.0, 2.0]), "dev": ([2000], [2.5])}
LEAVES = {f"layer {i}": np.arange(16) * i for i in range(5)}


def is_picture(path) -> bool:
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") if path.suffix == ".png" else b"<svg" in data


@pytest.mark.parametrize("name", ["picture.png", "picture.svg"])
def test_pictures_are_written(tmp_path, name):
    pytest.importorskip("matplotlib")
    plots.loss_curves(tmp_path / name, LOSSES, "losses")
    assert is_picture(tmp_path / name)
    plots.leaf_usage(str(tmp_path / name), LEAVES, "leaves")
    assert is_picture(tmp_path / name)


def test_the_same_figures_give_the_same_svg(tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        plots.loss_curves(tmp_path / name, LOSSES, "losses")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_effective_leaves():
    assert plots.effective_leaves([3, 3, 3, 3]) == pytest.approx(4)
    assert plots.effective_leaves([7, 0, 0]) == pytest.approx(1)
    assert plots.effective_leaves([0, 0]) == 0.0
    assert plots.effective_leaves([1, 3]) == pytest.approx(math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))))
    with pytest.raises(ValueError, match="leaf counts"):
        plots.effective_leaves([1, -1])


def test_what_cannot_be_drawn_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"expected a name that ends in .png or .svg"):
        plots.loss_curves(tmp_path / "x.pdf", LOSSES, "losses")
    with pytest.raises(ValueError, match="expected at least one series"):
        plots.loss_curves(tmp_path / "x.png", {}, "losses")
    with pytest.raises(ValueError, match="train: expected a loss for each token count, got 1 for 2"):
        plots.loss_curves(tmp_path / "x.png", {"train": ([1, 2], [1.0])}, "losses")
    with pytest.raises(ValueError, match="expected at least one layer"):
        plots.leaf_usage(tmp_path / "x.png", {}, "leaves")
    assert not (tmp_path / "x.png").exists()


def test_without_matplotlib_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match="matplotlib, which is missing"):
        plots.loss_curves(tmp_path / "x.png", LOSSES, "losses")
