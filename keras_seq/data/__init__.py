"""Data: files to tables, tables to windows. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Builtin": "builtin",
    "builtin_info": "builtin",
    "load_builtin": "builtin",
    "make_waves": "builtin",
    "calendar_features": "calendar",
    "calendar_names": "calendar",
    "SeriesTable": "series",
    "future_times": "series",
    "read_series": "series",
    "series_from_frame": "series",
    "Split": "splits",
    "default_split": "splits",
    "parse_split": "splits",
    "Windows": "windows",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
