"""Modules that can be called: `keras_seq.compare(...)` beside `keras_seq.compare.Comparison`.

A package attribute named like a submodule is replaced by the module as soon as anything imports
it. So the function of the same name is what calling the module does, and both spellings work.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that calls its function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function that has the module's name."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(name: str) -> None:
    """Makes an imported module callable.

    Args:
        name: The module's full name, ``__name__`` where this is used.

    Example:
        >>> import types
        >>> sys.modules["double"] = module = types.ModuleType("double")
        >>> module.double = lambda x: 2 * x
        >>> make_callable("double")
        >>> module(21)
        42
        >>> del sys.modules["double"]
    """
    sys.modules[name].__class__ = CallableModule
