"""Packages whose names are loaded when first used, so that importing the package is instant."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Returns ``__all__``, ``__getattr__`` and ``__dir__`` of such a package.

    Args:
        package: Its ``__name__``.
        homes: Each public name to the module of the package that has it.

    Example:
        >>> names, get, _ = lazy_names("keras_seq", {"UserError": "errors"})
        >>> names, get("UserError").__name__
        (['UserError'], 'UserError')
    """
    names = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return names, get, lambda: names
