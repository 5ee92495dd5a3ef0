"""Conditional random fields: scores of pairs of labels, the best sequence, and marginals."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Shape = tuple[Any, ...]

_NEVER = -1e9  # a score that no path with it can win; not infinite, so that 0 times it is 0


@keras.saving.register_keras_serializable(package="keras_seq")
class CRFPotentials(keras.layers.Layer):
    """Adds a learned score for each pair of neighbouring labels to the scores of each step.

    ``potentials[b, t, i, j]`` is what label j at step t is worth after label i: the score of j at
    step t plus that of the transition. At t = 0 it is the same for every i, with a learned score
    for starting with j. `keras_seq.losses.CRFLoss` takes it as it is.

    Args:
        **kwargs: As for every Keras layer.

    Call arguments:
        scores: (B, T, K).

    Returns:
        (B, T, K, K).

    Example:
        >>> import numpy as np
        >>> CRFPotentials()(np.zeros((2, 5, 3), "float32")).shape
        TensorShape([2, 5, 3, 3])

    Reference:
        Lafferty et al. 2001, Conditional Random Fields; Lample et al. 2016, Neural Architectures
        for Named Entity Recognition.
    """

    def build(self, scores_shape: Shape) -> None:
        """Makes the scores of transitions and of the first label."""
        classes = scores_shape[-1]
        self.transitions = self.add_weight(
            name="transitions", shape=(classes, classes), initializer="zeros"
        )
        self.start = self.add_weight(name="start", shape=(classes,), initializer="zeros")

    def call(self, scores: Any) -> Any:
        """Gives the scores of pairs."""
        first = ops.equal(ops.arange(ops.shape(scores)[1]), 0)[:, None, None]  # (T, 1, 1)
        between = ops.where(first, self.start[None, None], self.transitions[None])  # (T, K, K)
        return scores[:, :, None, :] + between[None]

    def compute_output_shape(self, scores_shape: Shape) -> Shape:
        """Returns (B, T, K, K)."""
        return (*scores_shape, scores_shape[-1])


class _Decoder(keras.layers.Layer):
    """What decoding and marginals share: steps of time are a loop, or written out one by one.

    Args:
        unroll: Whether the steps stand in the graph one by one; needs a fixed length. Exporters
            set it for converters that crash on loops.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, *, unroll: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unroll = unroll
        self.supports_masking = True

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Ends an implicit mask: masks are explicit here."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration."""
        return {**super().get_config(), "unroll": self.unroll}

    def scan(self, function: Any, first: Any, steps: Any, reverse: bool = False) -> Any:
        """Runs a function over the first axis of `steps` and returns what it carried, each time."""

        def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
            found = function(carry, inputs)
            return found, found

        if not self.unroll:
            return ops.scan(step, first, xs=steps, reverse=reverse)[1]
        found: list[Any] = []
        for t in range(steps.shape[0])[:: -1 if reverse else 1]:
            first = function(first, steps[t])
            found.append(first)
        return ops.stack(found[::-1] if reverse else found)


def steps_of_time(potentials: Any, mask: Any = None) -> tuple[Any, Any]:
    """Puts time first, and at masked steps potentials that hand every label on.

    Args:
        potentials: (B, T, K, K), see `CRFPotentials`.
        mask: (B, T) bool, True at real steps, which come first in a row; None: all.

    Returns:
        (T, B, K, K); and what a forward pass starts from, (B, K): a made-up label 0 alone, as the
        potentials of the first step are the same for all.
    """
    steps = ops.transpose(ops.cast(potentials, "float32"), (1, 0, 2, 3))
    label = ops.arange(potentials.shape[-1])
    if mask is not None:
        real = ops.transpose(ops.cast(mask, "bool"))[..., None, None]  # (T, B, 1, 1)
        same = ops.where(ops.equal(label[:, None], label[None]), 0.0, _NEVER)
        steps = ops.where(real, steps, same[None, None])
    first = ops.where(ops.equal(label, 0), 0.0, _NEVER)[None]
    return steps, ops.broadcast_to(first, ops.shape(steps[0, :, 0]))


@keras.saving.register_keras_serializable(package="keras_seq")
class ViterbiDecode(_Decoder):
    """The sequence of labels with the highest sum of potentials.

    Args:
        unroll: Whether the steps stand in the graph one by one; needs a fixed length.
        **kwargs: As for every Keras layer.

    Call arguments:
        potentials: (B, T, K, K), see `CRFPotentials`.
        mask: (B, T) bool, True at real steps, which come first in a row; None: all.

    Returns:
        (B, T) int32 class numbers; 0 at masked steps.

    Example:
        >>> import numpy as np
        >>> scores = np.zeros((1, 2, 2, 2), "float32")
        >>> scores[0, 1, 1, 0] = 5.0  # label 0 after label 1
        >>> np.asarray(ViterbiDecode()(scores)).tolist()
        [[1, 0]]

    Reference:
        Viterbi 1967, Error bounds for convolutional codes; Forney 1973, The Viterbi algorithm.
    """

    def call(self, potentials: Any, mask: Any = None) -> Any:
        """Finds the best sequence."""
        steps, start = steps_of_time(potentials, mask)
        best = self.scan(lambda best, step: ops.max(best[..., None] + step, axis=1), start, steps)
        # From which label each label at a step came: the first of those that are as good.
        before = ops.concatenate([start[None], best[:-1]], axis=0)[..., None] + steps
        classes = potentials.shape[-1]
        label = ops.arange(classes)
        most = ops.max(before, axis=2, keepdims=True)
        came = ops.min(ops.where(before >= most, label[:, None], classes), axis=2)  # (T, B, K)
        most = ops.max(best[-1], axis=-1, keepdims=True)
        last = ops.min(ops.where(best[-1] >= most, label, classes), axis=-1, keepdims=True)

        def backward(chosen: Any, came_here: Any) -> Any:
            # A sum over one label that is kept: no gather, so it runs on every device.
            kept = ops.where(ops.equal(label, chosen), came_here, 0)
            return ops.sum(kept, axis=-1, keepdims=True)

        # What is carried after step t is the label of step t - 1.
        earlier = self.scan(backward, last, came, reverse=True)[..., 0]  # (T, B)
        labels = ops.transpose(ops.concatenate([earlier[1:], ops.transpose(last)], axis=0))
        return labels if mask is None else ops.where(ops.cast(mask, "bool"), labels, 0)

    def compute_output_spec(self, potentials: Any, mask: Any = None) -> Any:
        """Returns (B, T) int32."""
        return keras.KerasTensor(potentials.shape[:2], dtype="int32")


@keras.saving.register_keras_serializable(package="keras_seq")
class CRFMarginals(_Decoder):
    """The probability of each label at each step, over all sequences (forward and backward).

    Args:
        unroll: Whether the steps stand in the graph one by one; needs a fixed length.
        **kwargs: As for every Keras layer.

    Call arguments:
        potentials: (B, T, K, K), see `CRFPotentials`.
        mask: (B, T) bool, True at real steps, which come first in a row; None: all.

    Returns:
        (B, T, K), each step sums to 1; masked steps repeat the last real one.

    Example:
        >>> import numpy as np
        >>> np.asarray(CRFMarginals()(np.zeros((1, 3, 2, 2), "float32")))[0, 2].tolist()
        [0.5, 0.5]

    Reference:
        Rabiner 1989, A tutorial on hidden Markov models; Lafferty et al. 2001.
    """

    def call(self, potentials: Any, mask: Any = None) -> Any:
        """Runs forward and backward and joins them."""
        steps, start = steps_of_time(potentials, mask)

        # Only differences between labels count. Without what they share, which grows with the
        # length, more digits are left for them.
        def forward(alpha: Any, step: Any) -> Any:
            alpha = log_forward(alpha, step)
            return alpha - ops.max(alpha, axis=1, keepdims=True)

        def backward(beta: Any, step: Any) -> Any:
            beta = ops.logsumexp(beta[:, None] + step, axis=2)
            return beta - ops.max(beta, axis=1, keepdims=True)

        alpha = self.scan(forward, start, steps)  # (T, B, K)
        none = ops.zeros_like(start)
        # What is carried after step t belongs to step t - 1.
        beta = self.scan(backward, none, steps, reverse=True)
        beta = ops.concatenate([beta[1:], none[None]], axis=0)
        return ops.transpose(ops.softmax(alpha + beta, axis=-1), (1, 0, 2))

    def compute_output_spec(self, potentials: Any, mask: Any = None) -> Any:
        """Returns (B, T, K) float32."""
        return keras.KerasTensor(potentials.shape[:3], dtype="float32")


def log_forward(alpha: Any, step: Any) -> Any:
    """One step of the forward algorithm.

    Args:
        alpha: (B, K) log sums over all ways to each label.
        step: (B, K, K) potentials of the next step.

    Returns:
        (B, K).
    """
    return ops.logsumexp(alpha[..., None] + step, axis=1)


def log_partition(potentials: Any, mask: Any = None) -> Any:
    """Sums exp of the scores of all sequences of labels, as a logarithm (forward algorithm).

    Args:
        potentials: (B, T, K, K), see `CRFPotentials`.
        mask: (B, T) bool, True at real steps, which come first in a row; None: all.

    Returns:
        (B,) float32.

    Example:
        >>> import numpy as np
        >>> round(float(log_partition(np.zeros((1, 3, 2, 2), "float32"))[0]), 4)  # log 8
        2.0794
    """
    steps, start = steps_of_time(potentials, mask)

    def forward(alpha: Any, step: Any) -> tuple[Any, Any]:
        found = log_forward(alpha, step)
        return found, found

    return ops.logsumexp(ops.scan(forward, start, xs=steps)[0], axis=-1)
