"""Transformers whose feed-forward layers are trees, on CPUs.

>>> import espalier
>>> model = espalier.Model("models/minilm-trees.esp")
>>> model.embed("a sentence").shape
(384,)
"""

from ._espalier import (
    Classification,
    Context,
    Error,
    Forest,
    Generation,
    Model,
    Routes,
    Tokens,
    __version__,
)
from .forests import forest

__all__ = [
    "Classification",
    "Context",
    "Error",
    "Forest",
    "Generation",
    "Model",
    "Routes",
    "Tokens",
    "__version__",
    "forest",
]
