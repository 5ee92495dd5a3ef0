"""What a task is to the command line and to `keras_seq.compare`: options, and a problem.

Light to import: no Keras, no pandas. The work is in the problem (`keras_seq.tasks.problem`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from keras_seq.errors import UserError

if TYPE_CHECKING:
    import pandas

    from keras_seq.models import Architecture
    from keras_seq.tasks.problem import Problem


def option(default: Any, help: str) -> Any:
    """Returns a dataclass field that is an option of the command line.

    Args:
        default: Its default; its type is the option's.
        help: What `--help` says.
    """
    return field(default=default, metadata={"help": help})


class Task:
    """A frozen dataclass whose fields are options, and what can be done with them.

    A task of your own subclasses it, and is registered as an entry point of the group
    ``keras_seq.tasks``.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Copying(Task):
        ...     length: int = option(10, "Symbols to copy (default 10).")
        ...     def __post_init__(self) -> None:
        ...         self.check_least(length=1)
        >>> Copying.options()
        {'length': 10}
        >>> Copying(length=0)
        Traceback (most recent call last):
        ...
        keras_seq.errors.UserError: --length is 0: give at least 1
    """

    name: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}  # what of the recipe differs for this task
    pairs: ClassVar[bool] = False  # whether each example is a source and a target

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Returns the default of every option by name."""
        return {f.name: f.default for f in fields(cls)}  # type: ignore[arg-type]

    def prepare(self) -> Problem:
        """Reads and checks the data.

        Returns:
            The problem: data, split, baselines and scores.

        Raises:
            UserError: If anything about the data or the options is wrong.
        """
        raise NotImplementedError

    def accepts(self, architecture: Architecture) -> str:
        """Says why an architecture cannot be trained under this task; "" if it can.

        Args:
            architecture: The architecture, with its options.
        """
        return ""

    @staticmethod
    def predict_file(
        run: Callable[[dict[str, Any]], Mapping[str, Any]],
        names: Collection[str],
        metadata: Mapping[str, Any],
        data: str,
    ) -> pandas.DataFrame:
        """Makes a table of what a model says about a file.

        Args:
            run: The model, in whatever runtime: named raw inputs to named outputs.
            names: The inputs that it has.
            metadata: What was stored with it, see `Problem.metadata`.
            data: The file.
        """
        raise NotImplementedError

    # ---- checks of options ----------------------------------------------------------------------

    def check_choice(self, **allowed: Sequence[str]) -> None:
        """Refuses options that are none of the words that they may be.

        Args:
            **allowed: The words, by option.

        Raises:
            UserError: That names the option and the words.
        """
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise UserError(
                    f"{flag(name)} is {getattr(self, name)!r}: choose one of {', '.join(words)}"
                )

    def check_least(self, **least: int) -> None:
        """Refuses options that are too small.

        Args:
            **least: The smallest value, by option.

        Raises:
            UserError: That names the option and the value.
        """
        for name, value in least.items():
            if getattr(self, name) < value:
                raise UserError(f"{flag(name)} is {getattr(self, name)}: give at least {value}")

    def check_share(self, *names: str, zero: bool = True) -> None:
        """Refuses options that are no share.

        Args:
            *names: Options.
            zero: Whether nothing is a share, too.

        Raises:
            UserError: That names the option.
        """
        for name in names:
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"{flag(name)} is {value}: give 0 to less than 1")
            if not zero and value == 0:
                raise UserError(f"{flag(name)} is {value}: give a share between 0 and 1")


def flag(name: str) -> str:
    """Returns an option as it stands on the command line.

    Example:
        >>> flag("max_tokens")
        '--max-tokens'
    """
    return f"--{name.replace('_', '-')}"
