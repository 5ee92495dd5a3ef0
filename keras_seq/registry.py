"""What can be named: architectures, tasks, exporters and trackers, ours and those of plugins.

Standard library only, so that importing it is instant: a name stands for ``"module:attribute"``,
and the module is imported when the name is first asked for. A plugin adds the same line as an
entry point of the group in its own ``pyproject.toml``.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from keras_seq.errors import UserError

Function = TypeVar("Function", bound=Callable[..., Any])


class PluginWarning(UserWarning):
    """A plugin could not be loaded; everything else goes on without it."""


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Args:
        name: What users type.
        target: ``"module:attribute"``, or the object itself.
        origin: The distribution that registered it, for messages.
    """

    name: str
    target: Any
    origin: str


class Registry:
    """A table of names with built-in lines, lines added at run time, and entry points.

    Args:
        kind: What the names are, in words for messages ("architecture").
        group: The entry-point group that plugins use.
        module: A module whose import fills the built-in lines, or None.

    Example:
        >>> fruits = Registry("fruit", "example.fruits")
        >>> fruits.add("sum", "builtins:sum")
        >>> fruits.get("sum")([1, 2])
        3
        >>> fruits.get("sun")
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: unknown fruit 'sun'; the nearest name is 'sum' (known: sum)
    """

    def __init__(self, kind: str, group: str, module: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._module = module
        self._entries: dict[str, Entry] = {}
        self._loaded: dict[str, Any] = {}
        self._plugins: dict[str, list[EntryPoint]] | None = None
        self._prefixes: dict[str, str] = {}

    def add_prefix(self, prefix: str, target: str) -> None:
        """Registers a family of names ``prefix:rest``, made by a function when they are asked for.

        Args:
            prefix: What stands before the colon.
            target: ``"module:attribute"`` of a function from the rest to the object.

        Example:
            >>> numbers = Registry("number", "example.numbers")
            >>> numbers.add_prefix("hexadecimal", "builtins:ascii")
            >>> numbers.get("hexadecimal:ff")
            "'ff'"
        """
        self._prefixes[prefix] = target

    def add(self, name: str, target: Any, *, origin: str = "keras_seq") -> None:
        """Registers a name.

        Args:
            name: The name; it must be free.
            target: ``"module:attribute"``, or the object itself.
            origin: Who registers it, for messages.

        Raises:
            UserError: If the name is taken.
        """
        taken = self._entries.get(name)
        if taken is None and self._module is not None and origin != "keras_seq":
            importlib.import_module(self._module)
            taken = self._entries.get(name)
        if taken is not None:
            raise UserError(
                f"the {self.kind} name {name!r} is taken twice: by {taken.origin} "
                f"({taken.target}) and by {origin} ({target}); rename one of them"
            )
        self._entries[name] = Entry(name, target, origin)

    def remove(self, name: str) -> None:
        """Takes a name that was added at run time out again (used by tests and notebooks).

        Args:
            name: The name to take out.
        """
        self._entries.pop(name, None)
        self._loaded.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """Returns every name, built-in ones first, in the order of registration."""
        self._fill()
        plugins = self._entry_points()
        return (*self._entries, *(name for name in sorted(plugins) if name not in self._entries))

    def origin(self, name: str) -> str:
        """Returns the distribution that registered a name."""
        self._fill()
        if name in self._entries:
            return self._entries[name].origin
        points = self._entry_points().get(name)
        if points:
            return _distribution(points[0])
        return "keras_seq" if self._family(name) else "import path"

    def __contains__(self, name: object) -> bool:
        """Tells whether a name is registered."""
        return name in self.names()

    def get(self, name: str) -> Any:
        """Returns the object behind a name, or behind an import path ``module:attribute``.

        Args:
            name: A registered name, or ``"module:attribute"`` for something unregistered.

        Raises:
            UserError: If the name is unknown (the message has the nearest one), taken twice, or
                cannot be imported.
        """
        self._fill()
        if name in self._loaded:
            return self._loaded[name]
        if name in self._entries:
            entry = self._entries[name]
            self._refuse_double(name, entry.origin, self._entry_points().get(name, []))
            target = entry.target
            value = _import(target, self.kind) if isinstance(target, str) else target
        elif points := self._entry_points().get(name):
            self._refuse_double(name, _distribution(points[0]), points[1:])
            value = self._load_plugin(points[0])
        elif family := self._family(name):
            value = _import(family, self.kind)(name.partition(":")[2])
        elif ":" in name:
            value = _import(name, self.kind)
        else:
            known = self.names()
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"the nearest name is {near[0]!r} " if near else ""
            raise UserError(f"unknown {self.kind} {name!r}; {hint}(known: {', '.join(known)})")
        self._loaded[name] = value
        return value

    def load_all(self) -> dict[str, Any]:
        """Loads every name; a plugin that fails is left out with a warning that names it."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except PluginError as error:
                warnings.warn(str(error), PluginWarning, stacklevel=2)
        return found

    def _family(self, name: str) -> str | None:
        prefix, colon, rest = name.partition(":")
        return self._prefixes.get(prefix) if colon and rest else None

    def _fill(self) -> None:
        if self._module is not None:
            importlib.import_module(self._module)

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        if self._plugins is None:
            self._plugins = {}
            for point in entry_points(group=self.group):
                points = self._plugins.setdefault(point.name, [])
                # The same distribution can be seen twice (editable install beside its source).
                if all(point.value != other.value for other in points):
                    points.append(point)
        return self._plugins

    def refresh(self) -> None:
        """Forgets the entry points seen so far, so that newly installed plugins are found."""
        self._plugins = None
        self._loaded.clear()

    def _refuse_double(self, name: str, first: str, others: list[EntryPoint]) -> None:
        if others:
            raise UserError(
                f"the {self.kind} name {name!r} is taken twice: by {first} and by "
                f"{_distribution(others[0])}; uninstall or rename one of them"
            )

    def _load_plugin(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except Exception as error:
            raise PluginError(
                f"the {self.kind} {point.name!r} of the plugin {_distribution(point)} cannot be "
                f"loaded ({type(error).__name__}: {error}); repair or uninstall that distribution"
            ) from error


class PluginError(UserError):
    """A plugin that raises while it is imported."""


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _import(path: str, kind: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise UserError(f"the {kind} {path!r} cannot be imported: {error}") from error
    return value


def architecture(*tags: str) -> Callable[[Function], Function]:
    """Declares what an architecture is able to do, for `list`, the tests and the exporters.

    Args:
        *tags: Any of ``causal``, ``streaming``, ``recurrent``, ``needs_fixed_length``,
            ``returns_attention``, ``forecaster``, ``vector``, ``channel_independent``, or words of
            your own. They describe the default options.

    Returns:
        A decorator that sets ``function.tags`` and leaves the function as it is.

    Example:
        >>> @architecture("causal")
        ... def last_value(x, *, mask=None, width=8):
        ...     return x
        >>> sorted(last_value.tags)
        ['causal']
    """

    def declare(function: Function) -> Function:
        function.tags = frozenset(tags)  # type: ignore[attr-defined]
        return function

    return declare


architectures = Registry("architecture", "keras_seq.architectures", "keras_seq.models")
tasks = Registry("task", "keras_seq.tasks")
architectures.add_prefix("hub", "keras_seq.models.hub:from_preset")
exporters = Registry("exporter", "keras_seq.exporters")
trackers = Registry("tracker", "keras_seq.trackers")
tasks.add("forecasting", "keras_seq.tasks.forecasting:Forecasting")
tasks.add("classification", "keras_seq.tasks.classification:Classification")
tasks.add("tagging", "keras_seq.tasks.tagging:Tagging")
tasks.add("language_model", "keras_seq.tasks.language_model:LanguageModel")
tasks.add("translation", "keras_seq.tasks.translation:Translation")
trackers.add("tensorboard", "keras_seq.trackers:tensorboard")
trackers.add("mlflow", "keras_seq.trackers:mlflow")
for _name in ("saved_model", "litert", "litert_float16", "litert_dynamic", "litert_int8"):
    exporters.add(_name, f"keras_seq.export:{_name}")
exporters.add("keras", "keras_seq.export:keras_file")
exporters.add("onnx", "keras_seq.export:onnx")
