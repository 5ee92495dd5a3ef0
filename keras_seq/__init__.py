"""Sequence models in Keras: compare every architecture on your data, ship the one that won.

Importing this package is instant; TensorFlow is loaded when a name that needs it is first used.

Example:
    >>> import keras_seq
    >>> "lstm" in keras_seq.architectures
    True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_seq.errors import UserError

# `tasks` and `trackers` are modules here; their registries are keras_seq.registry.tasks ...
from keras_seq.registry import architecture, architectures, exporters

if TYPE_CHECKING:
    from keras_seq import heads, layers, models, testing
    from keras_seq.compare import compare
    from keras_seq.export import export
    from keras_seq.models import build
    from keras_seq.saving import load, save
    from keras_seq.training import fit

__version__ = "0.1.0"

# name -> module that has it; loaded when first asked for, so that `import keras_seq` is instant.
_LAZY = {
    "build": "keras_seq.models",
    "fit": "keras_seq.training",
    "load": "keras_seq.saving",
    "save": "keras_seq.saving",
}
# `compare` and `export` are modules that can be called: see callable_module.py.
_MODULES = (
    "baselines",
    "callbacks",
    "compare",
    "data",
    "evaluation",
    "export",
    "figures",
    "heads",
    "layers",
    "metrics",
    "models",
    "testing",
)

__all__ = [
    "UserError",
    "architecture",
    "architectures",
    "build",
    "compare",
    "export",
    "exporters",
    "fit",
    "heads",
    "layers",
    "load",
    "models",
    "save",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"keras_seq.{name}")
    else:
        raise AttributeError(f"module 'keras_seq' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_MODULES})
