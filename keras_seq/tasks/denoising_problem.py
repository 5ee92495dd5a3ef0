"""One denoising problem: texts with hidden spans, and an encoder-decoder that writes them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_seq.data import SpanBatches, most_spans
from keras_seq.errors import UserError
from keras_seq.heads import Tokens, Translation
from keras_seq.tasks.language_model_problem import PARTS, LanguageModelProblem, Prediction

if TYPE_CHECKING:
    from keras_seq.export import Endpoint
    from keras_seq.tasks.language_model import LanguageModel

_SPECIAL = 5  # ids that stand for no token of a text
_COUNTED = 2_000_000  # target tokens that the baselines count, at most


class DenoisingProblem(LanguageModelProblem):
    """The texts of a language model as pairs: spans are hidden in a source, the target has them.

    This is T5's pretraining, of any encoder-decoder. The networks have the layers of those of the
    translation task, with one vocabulary for both sides, so that ``--init`` takes them over there.
    The last ids of the vocabulary mark what is hidden, as many as a window has spans; the tokens
    whose ids they are, the rarest, are unknown tokens here.

    Args:
        options: What the user asked for, with the objective ``denoise``.

    Raises:
        UserError: If the data or the options are wrong; nothing has been written then.

    Reference:
        Raffel et al. 2020, Exploring the Limits of Transfer Learning with a Unified Text-to-Text
        Transformer, section 3.1.4.
    """

    def __init__(self, options: LanguageModel) -> None:
        super().__init__(options)
        if self.warm_start:
            source, target = self.warm_start.tokenizers()
            if source is not target:
                raise UserError(
                    f"--init is {options.init}: it has a tokenizer for each side, and --objective "
                    "denoise wants one for both: take a run that was made without --separate"
                )
        self.sentinels = most_spans(options.context, options.masked_share, options.masked_span)
        tokens = self.vocabulary - _SPECIAL
        if tokens <= self.sentinels:
            raise UserError(
                f"--objective denoise marks up to {self.sentinels} spans in {options.context} "
                f"tokens by as many ids, and the vocabulary has {tokens}: give a smaller --context "
                "or another --tokenizer"
            )

    def _make_head(self, tokens: Tokens) -> Translation:
        return Translation(tokens, tokens, shared="all", dropout=self.options.dropout)

    # ---- what training needs ------------------------------------------------------------------

    def _inputs(self) -> dict[str, Any]:
        return {n: keras.Input((None,), name=n, dtype="int32") for n in ("source", "tokens")}

    def data(self, part: str, model: keras.Model | None) -> SpanBatches:
        """Returns the windows of a part, spans hidden.

        Args:
            part: ``train``, ``validation`` or ``test``.
            model: The model that will read them.
        """
        return self._hidden(part)

    def _hidden(self, part: str) -> SpanBatches:
        options = self.options
        return SpanBatches(
            self.streams.ids[part],
            options.context,
            vocabulary=self.vocabulary,
            share=options.masked_share,
            span=options.masked_span,
        )

    def _sample_windows(self, part: str) -> SpanBatches:
        return self._hidden(part)

    # ---- predictions and scores ---------------------------------------------------------------

    @cached_property
    def truth(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Where the tokens of the targets stand in the stream of these, and their ids, by part."""
        found = {}
        for part in PARTS:
            ids = _targets(self._hidden(part))
            found[part] = (np.arange(len(ids)), ids)
        return found

    def _counted(self, part: str) -> np.ndarray:
        """(N,) the targets, one after the other, each with its end."""
        if part in PARTS:
            return self.truth[part][1]
        # Other spans in each pass, until about as many tokens were targets as the text has.
        data = self._hidden(part)
        most = min(len(data.ids), _COUNTED)
        found: list[np.ndarray] = []
        size, step, batch = 0, 0, 64
        while size < most:
            _, y = data.training_batch(batch, 0, step)
            found.append(y[y > 0] - 1)
            size, step = size + len(found[-1]), step + 1
        return np.concatenate(found)

    def baselines(self) -> Iterator[tuple[str, Prediction, float, str]]:
        """Counts and runs each baseline: they know the targets and read no source.

        Yields:
            Name, prediction, seconds, and a note.
        """
        for name, prediction, seconds, note in super().baselines():
            blind = "of the targets alone; it reads no source" if name != "uniform" else ""
            yield name, prediction, seconds, "; ".join(text for text in (note, blind) if text)

    # ---- what is shipped ----------------------------------------------------------------------

    def deployable(self, model: keras.Model) -> keras.Model:
        """Wraps a trained network: a source with gaps and a target so far in, scores out.

        Args:
            model: A network made by `build` or `ensemble`.

        Returns:
            A functional model: ``source`` (B, S) and ``tokens`` (B, T) to ``logits`` (B, T, V).
        """
        inputs = self._inputs()
        core = keras.Model(model.input, model.output, name=model.name)
        logits = keras.layers.Identity(name="logits")(core(inputs)["logits"])
        return keras.Model(inputs, {"logits": logits}, name=model.name)

    def endpoints(self, model: keras.Model) -> tuple[Endpoint, ...]:
        """Returns nothing: what fills gaps is a start for other tasks, and of no use by itself.

        Args:
            model: The deployable model.
        """
        return ()

    def metadata(self) -> dict[str, Any]:
        """Returns what a use of the model needs; it travels inside the model file."""
        return {**super().metadata(), "sentinels": self.sentinels}

    def _protocol(self) -> str:
        options = self.options
        return (
            f"{options.masked_share:.0%} of the tokens of each window of {options.context} are "
            f"hidden in spans of {options.masked_span:g} on average, the same ones for every "
            "model; mean over the tokens of the targets: marks of spans, what is hidden, the end"
        )

    @property
    def title(self) -> str:
        """A title for tables."""
        return f"{self.streams.source}: hidden spans, {self.tokenizer.kind}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the data."""
        lost = self.counts[-self.sentinels :].sum() / self.counts.sum()
        return (
            *self.streams.notes,
            f"ids at the end of the vocabulary that mark hidden spans: {self.sentinels}; "
            f"{lost:.2%} of the training tokens have them and are read as <unk>",
        )


def _targets(data: SpanBatches) -> np.ndarray:
    """(N,) the tokens of the targets at fixed places, one after the other."""
    return np.concatenate([y[y > 0] - 1 for _, y in data.batches(64)])
