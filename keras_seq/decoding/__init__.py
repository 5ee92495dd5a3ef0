"""Writing on: from what a model says about the next token to whole sequences.

Everything here stands on one step: ``step(tokens, states, position) -> (logits, states)``, with
the token of one position for each row (B,), what the model remembers of the positions before it
(a dict of tensors, batch first), and that position (B,). `stepper` makes it of a trained model:
each token costs one position, not the whole text once more. A search that is not here, over any
model that has a step, needs nothing else.
"""

from __future__ import annotations

from keras_seq.decoding.beam import (
    BeamOptions,
    Hypotheses,
    beam_search,
    greedy_search,
    search_function,
    strip,
)
from keras_seq.decoding.loop import generate, stream
from keras_seq.decoding.sampling import Choice, probabilities, sample_search
from keras_seq.decoding.search import SearchModel, average, search_model
from keras_seq.decoding.step import Stepper, step_model, stepper, whole_stepper

__all__ = [
    "BeamOptions",
    "Choice",
    "Hypotheses",
    "SearchModel",
    "Stepper",
    "average",
    "beam_search",
    "generate",
    "greedy_search",
    "probabilities",
    "sample_search",
    "search_function",
    "search_model",
    "step_model",
    "stepper",
    "stream",
    "strip",
    "whole_stepper",
]
