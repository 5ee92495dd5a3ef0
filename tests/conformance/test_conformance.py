"""Every registered architecture and every public layer, times every property.

What is public and not in the grid fails the last tests of this file.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any

import keras
import numpy as np
import pytest

import keras_seq
from keras_seq import layers, testing
from keras_seq.models import resolve

# Registered by keras_seq itself; a plugin that happens to be installed is its author's to test.
ARCHITECTURES = tuple(
    name
    for name in keras_seq.architectures.names()
    if keras_seq.architectures.origin(name) == "keras_seq"
)

# Options besides the defaults whose code is different enough to be worth the whole grid.
VARIANTS: dict[str, dict[str, Any]] = {
    "linear-dlinear": {"form": "dlinear", "individual": True},
    "mlp-residual": {"residual": True, "layer_norm": True},
    "cnn-causal": {"causal": True},
    "lstm-stacked": {"depth": 2, "residual": True, "layer_norm": True},
    "lstm-bidirectional": {"bidirectional": True},
    "gru-bidirectional": {"bidirectional": True, "depth": 2},
    "gru-variational": {"dropout": 0.1, "variational": True},
    "attention_rnn-causal": {"causal": True, "cell": "gru"},
    "transformer-causal": {"causal": True, "positions": "rotary", "glu": True, "depth": 1},
    "transformer-post": {"norm": "post", "positions": "learned", "depth": 1},
    "conv_seq2seq-wide": {"kernel_size": 4, "depth": 1, "positions": "sinusoidal"},
    "t5-glu": {"glu": True, "depth": 1},
    "bag_of_words-counts": {"weights": "counts", "ngrams": 2, "depth": 2},
    "fasttext-embeddings": {"nb": False, "ngrams": 2},
}

# Architectures on features that are tried on embedded tokens as well: one of each kind.
ON_TOKENS = ("gru-tokens", "tcn-tokens", "text_cnn-tokens", "transformer-tokens")
CASES = (*ARCHITECTURES, *VARIANTS, *ON_TOKENS)

# Forecasters take as many steps as their smallest defaults allow; see the tests of each.
SMALL: dict[str, dict[str, Any]] = {
    "linear": {"window": 5},
    "patch_transformer": {"patch_length": 8, "stride": 4},
    "segment_rnn": {"segment_length": 6},
    # So many ids that few n-grams meet, in files that are quickly written.
    "fasttext": {"buckets": 500},
    "bag_of_words": {"buckets": 500},
    # A second layer shows what a fourth does: tracing them is most of what the grid costs.
    "conv_seq2seq": {"depth": 2},
    "gpt": {"depth": 2},
    "seq2seq_transformer": {"depth": 2},
    "t5": {"depth": 2},
}

# What the plain form of an architecture shows for its variants too. Of a variant the gradients and
# the LiteRT file, which begins as a SavedModel, remain; of one with code of its own everything.
PLAIN_ONLY = ("learns", "saved_model")
WHOLE = ("linear-dlinear", "lstm-bidirectional", "bag_of_words-counts", "fasttext-embeddings",
         "gru-tokens")  # fmt: skip


def options(case: str) -> dict[str, Any]:
    name = case.partition("-")[0]
    return {**SMALL.get(name, {}), **VARIANTS.get(case, {})}


@functools.cache
def checks_of(case: str) -> testing.Checks:
    # One model a case serves all its checks, and the fresh process at the end.
    return testing.architecture_checks(
        case.partition("-")[0],
        options=options(case),
        tokens=True if case in ON_TOKENS else None,
        fresh_process=False,
    )


def marks(group: str, check: str) -> list[Any]:
    slow = [pytest.mark.slow] if check in ("saved_model", "litert") else []
    return [pytest.mark.xdist_group(group), *slow]


def grid() -> list[Any]:
    return [
        pytest.param(
            case,
            check,
            marks=marks(f"architecture-{case}", check),
            id=f"{case}-{check}",
        )
        for case in CASES
        for check in checks_of(case)
        if "-" not in case or case in WHOLE or check not in PLAIN_ONLY
    ]


@pytest.mark.parametrize(("case", "check"), grid())
def test_architecture(case: str, check: str):
    checks_of(case)[check]()


def test_what_the_tags_promise_is_checked():
    """The grid is chosen by tags: a tag must bring its check with it."""
    for name in ARCHITECTURES:
        tags, found = keras_seq.architectures.get(name).tags, set(checks_of(name))
        assert {"signature", "save", "learns", "litert", "saved_model", "mixed_float16"} <= found
        assert ("attention" in found) == ("returns_attention" in tags)
        if resolve(name).encoder_decoder:
            assert {"padding", "causal", "steps", "reads_source"} <= found
            continue
        assert ("causal" in found) == ("causal" in tags)
        if resolve(name).reads_tokens:
            assert {"padding", "adapt"} <= found
            continue
        sequence = not {"forecaster", "needs_fixed_length"} & tags
        assert ("mask_padding" in found) == sequence
        if sequence:
            assert "mask_values" in found


def test_what_reads_tokens_is_tried_on_them():
    for case in ON_TOKENS:
        assert {"logits", "padding", "learns", "litert", "saved_model"} <= set(checks_of(case))


# ---------------------------------------------------------------------------------------- layers

T = 7  # steps; no other size below is 7


def random(*shape: int) -> np.ndarray:
    seed = zlib.crc32(str(shape).encode())
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


MASK = np.arange(T) < np.array([[7], [4], [5]])
MASK[0, 2] = False  # a hole
FIRST = np.arange(T) < np.array([[7], [4], [5]])  # real steps first
TOKENS = np.where(MASK, np.random.default_rng(0).integers(5, 20, size=MASK.shape), 0).astype(
    "int32"
)

# name of the layer class, what sets the case apart -> arguments of layer_checks.
LAYERS: dict[str, dict[str, Any]] = {
    "AdditiveAttention-memory": {
        "layer": lambda: layers.AdditiveAttention(6),
        "inputs": (random(3, 5, 4), random(3, T, 2)),
        "mask": MASK,
    },
    "AdditiveAttention-causal": {
        "layer": lambda: SelfAdditiveAttention(),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
        "export": False,
    },
    **{
        f"AlibiBias-{form}": {
            "layer": functools.partial(layers.AlibiBias, 6, causal=form == "causal"),
            "inputs": random(3, 6, T, T),
            "fixed_length": True,
        }
        for form in ("symmetric", "causal")
    },
    "Alignment": {
        "layer": layers.Alignment,
        "inputs": (random(3, 5, 4), random(3, T, 6), random(3, T, 2)),
        "mask": MASK,
    },
    "Alignment-coverage": {
        "layer": lambda: layers.Alignment("luong_concat", coverage=True),
        "inputs": (random(3, 5, 4), random(3, T, 6), random(3, T, 2)),
        "call_kwargs": {"coverage": np.abs(random(3, 5, T))},
        "mask": MASK,
        "fixed_length": True,
    },
    "Alignment-local": {
        "layer": lambda: layers.Alignment("scaled_dot", window=3, predictive=True),
        "inputs": (random(3, 5, 4), random(3, T, 6), random(3, T, 2)),
        "mask": MASK,
    },
    "Alignment-location": {
        "layer": lambda: layers.Alignment("location", window=2, max_length=16),
        "inputs": (random(3, 5, 4), random(3, T, 2), random(3, T, 2)),
        "mask": MASK,
    },
    "AlignmentKeys": {
        "layer": lambda: layers.AlignmentKeys(6),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "ApplyMask": {"layer": layers.ApplyMask, "inputs": random(3, T, 4), "mask": MASK},
    "Dropout": {"layer": lambda: layers.Dropout(0.5), "inputs": random(3, T, 4)},
    "EncoderOutput": {"layer": layers.EncoderOutput, "inputs": random(3, T, 4)},
    "AttentionDecoder": {
        "layer": lambda: layers.AttentionDecoder(6),
        "inputs": (random(3, 5, 4), random(3, T, 6), random(3, T, 2)),
        "mask": MASK,
    },
    "AttentionDecoder-coverage": {
        # Its loop carries the coverage, and LiteRT wants to know how long that is; its step runs.
        "layer": lambda: layers.AttentionDecoder(6, coverage=True),
        "inputs": (random(3, 5, 4), random(3, T, 6), random(3, T, 2)),
        "mask": MASK,
        "export": False,
    },
    "AttentionDecoder-luong": {
        # The mask here is the source's, which has no axis of T steps.
        "layer": lambda: layers.AttentionDecoder(
            6, cell="lstm", score="luong_general", depth=2, dropout=0.1
        ),
        "inputs": (random(3, T, 4), random(3, 5, 6), random(3, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5]},
        "causal": True,
    },
    "AttentionDecoder-conditional": {
        "layer": lambda: layers.AttentionDecoder(6, order="conditional", dropout=0.1),
        "inputs": (random(3, T, 4), random(3, 5, 6), random(3, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5]},
        "causal": True,
    },
    "AttentionDecoder-at_once": {
        "layer": lambda: layers.AttentionDecoder(6, score="luong_general", input_feeding=False),
        "inputs": (random(3, T, 4), random(3, 5, 6), random(3, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5]},
        "causal": True,
    },
    "BlockwiseAttention": {
        "layer": lambda: layers.BlockwiseAttention(2, block=4),  # T is more than a tile
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "BlockwiseAttention-causal": {
        "layer": lambda: layers.BlockwiseAttention(
            4, width=8, causal=True, rotary=True, kv_heads=2, bias="alibi", qk_norm=True, block=4
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
    },
    "CRFMarginals": {
        "layer": layers.CRFMarginals,
        "inputs": random(3, T, 4, 4),
        "mask": FIRST,
    },
    "CRFPotentials": {"layer": layers.CRFPotentials, "inputs": random(3, T, 4)},
    "ClassToken": {
        "layer": layers.ClassToken,
        "inputs": random(3, T, 4),
    },
    "ClassToken-mask": {
        # The mask that comes out is one step longer: nothing to compare step by step.
        "layer": layers.ClassToken,
        "inputs": (random(3, T, 4), MASK),
        "fixed_length": True,
        "export": False,
    },
    "CrossAttention": {
        # The mask here is the source's, which has no axis of T steps.
        "layer": lambda: layers.CrossAttention(2, 8),
        "inputs": (random(3, T, 4), random(3, 2, 5, 4), random(3, 2, 5, 4)),
        "call_kwargs": {"mask": MASK[:, :5]},
        "causal": True,
    },
    "CovariateEffect": {"layer": lambda: layers.CovariateEffect(2), "inputs": random(3, T, 4)},
    **{
        f"EmbeddingBag-{weights}": {
            "layer": functools.partial(
                layers.EmbeddingBag, 20, 4, weights=weights, orders=orders, buckets=30
            ),
            "inputs": TOKENS,
        }
        for weights, orders in (("mean", 1), ("counts", 1), ("tf_idf", 2))
    },
    "DecoderBlock": {
        "layer": lambda: layers.DecoderBlock(8, heads=4),
        "inputs": (random(3, T, 8), random(3, 2, 5, 2), random(3, 2, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5], "target_mask": FIRST},
        "causal": True,
    },
    "DecoderBlock-options": {
        "layer": lambda: layers.DecoderBlock(
            8,
            heads=4,
            norm="post",
            norm_kind="rms",
            rotary=True,
            glu=True,
            kv_heads=2,
            bias="relative",
            qk_norm=True,
            max_length=16,
        ),
        "inputs": (random(3, T, 8), random(3, 2, 5, 2), random(3, 2, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5], "target_mask": FIRST},
        "causal": True,
    },
    "DiagonalStateSpace": {
        "layer": lambda: layers.DiagonalStateSpace(6, states=4, return_sequences=True),
        "inputs": random(3, T, 5),
        "mask": MASK,
        "causal": True,
    },
    "DiagonalStateSpace-real": {
        "layer": lambda: layers.DiagonalStateSpace(
            states=3, initialization="real", return_sequences=True
        ),
        "inputs": random(3, T, 4),
        "causal": True,
    },
    "FeedForward": {"layer": lambda: layers.FeedForward(12), "inputs": random(3, T, 4)},
    "FeedForward-glu": {
        "layer": lambda: layers.FeedForward(glu=True),
        "inputs": random(3, T, 4),
        "causal": True,
        "export": False,
    },
    **{
        f"GatedConvolution-{form}": {
            "layer": functools.partial(
                layers.GatedConvolution, 6, 4, causal=form == "causal", dropout=0.1
            ),
            "inputs": random(3, T, 4),
            "mask": MASK,
            "causal": form == "causal",
        }
        for form in ("both", "causal")
    },
    "HashedNGrams": {
        "layer": lambda: layers.HashedNGrams(20, 3, 30),
        "inputs": TOKENS,
        "skip": ("gradients",),  # of ids there are none
    },
    "LastObserved": {"layer": layers.LastObserved, "inputs": random(3, T, 4), "mask": MASK},
    "LearnedCycle": {
        "layer": lambda: layers.LearnedCycle(5, 2),
        "inputs": np.array([0, 3, 11], "int32"),
        "call_kwargs": {"offset": 4, "length": 9},
    },
    "LearnedOffset": {
        "layer": layers.LearnedOffset,
        "inputs": random(3, T, 4),
        "fixed_length": True,
    },
    "LearnedPositions": {
        "layer": lambda: layers.LearnedPositions(max_length=16),
        "inputs": random(3, T, 4),
        "causal": True,
    },
    "LinearInterpolation": {
        "layer": lambda: layers.LinearInterpolation(11),
        "inputs": random(3, T),
        "fixed_length": True,
    },
    "MemoryProjection": {
        "layer": lambda: layers.MemoryProjection(2, 6),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "MinGRU": {
        "layer": lambda: layers.MinGRU(6, return_sequences=True),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
    },
    "MultiHeadAttention": {
        "layer": lambda: layers.MultiHeadAttention(2),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "MultiHeadAttention-causal": {
        "layer": lambda: layers.MultiHeadAttention(2, width=6, causal=True),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
        "export": False,
    },
    "MultiHeadAttention-rotary": {
        "layer": lambda: layers.MultiHeadAttention(
            2, width=8, causal=True, rotary=True, max_length=16
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
        "export": False,  # in a file: TransformerBlock-post
    },
    "MultiHeadAttention-memory": {
        "layer": lambda: layers.MultiHeadAttention(2, width=8),
        "inputs": (random(3, 5, 4), random(3, T, 6)),
        "mask": MASK,
    },
    "MultiHeadAttention-grouped": {
        "layer": lambda: layers.MultiHeadAttention(
            4, width=8, causal=True, kv_heads=2, bias="alibi", qk_norm=True
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
    },
    "MultiHeadAttention-bias": {
        "layer": lambda: layers.MultiHeadAttention(2, kv_heads=1, bias="relative"),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "export": False,  # in a file: DecoderBlock-options
    },
    "MultiStepAttention": {
        # The mask here is the source's, which has no axis of T steps.
        "layer": lambda: layers.MultiStepAttention(6),
        "inputs": (random(3, T, 4), random(3, T, 6), random(3, 5, 6), random(3, 5, 2)),
        "call_kwargs": {"mask": MASK[:, :5]},
        "causal": True,
    },
    "NaiveBayesScores": {
        "layer": lambda: layers.NaiveBayesScores(2, 20, buckets=30, dropout=0.2),
        "inputs": TOKENS,
    },
    "NaiveBayesScores-classes": {
        "layer": lambda: layers.NaiveBayesScores(3, 20, buckets=30, exclusive=False),
        "inputs": TOKENS,
        "export": False,
    },
    "OrderedQuantiles": {
        "layer": lambda: layers.OrderedQuantiles((0.1, 0.5, 0.9)),
        "inputs": random(3, T, 2, 3),
    },
    "Patches": {
        "layer": lambda: layers.Patches(4, 2),
        "inputs": random(3, T),
        "fixed_length": True,
    },
    "Patches-end": {
        "layer": lambda: layers.Patches(4, 2, padding="end"),
        "inputs": random(3, T),
        "fixed_length": True,
        "export": False,
    },
    **{
        f"Pooling-{method}": {
            "layer": functools.partial(layers.Pooling, method),
            "inputs": random(3, T, 4),
            "mask": MASK,
        }
        for method in ("last", "first", "mean", "max", "attention")
    },
    **{
        f"RelativeBias-{form}": {
            "layer": functools.partial(
                layers.RelativeBias, 2, buckets=8, max_distance=6, causal=form == "causal"
            ),
            "inputs": random(3, 2, T, T),
            "fixed_length": True,
        }
        for form in ("both", "causal")
    },
    "RelativeBiasTable": {
        # One table for all rows and steps: there is no batch in what comes out.
        "layer": lambda: layers.RelativeBiasTable(2, buckets=8, max_distance=6),
        "inputs": random(3, T, 4),
        "export": False,
        "skip": ("rows",),
    },
    "ReverseNormalization": {
        "layer": layers.ReverseNormalization,
        "inputs": (random(3, T, 2, 3), random(3, 1, 2), random(3, 1, 2)),
    },
    "ReversibleNormalization-mean": {
        "layer": layers.ReversibleNormalization,
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "ReversibleNormalization-last": {
        "layer": lambda: layers.ReversibleNormalization(center="last", affine=True),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "RotaryPositions": {
        "layer": lambda: layers.RotaryPositions(max_length=16),
        "inputs": random(3, 2, T, 4),
        "fixed_length": True,
    },
    "SampledLikelihood": {
        # In training rows are set against each other.
        "layer": lambda: layers.SampledLikelihood(20),
        "inputs": (random(3, T, 4), random(3, T, 4), TOKENS, random(3, T, 20)),
        "export": False,
    },
    "SegmentQueries": {
        # A row of the input becomes several rows of the output: they cannot be compared one by one.
        "layer": lambda: layers.SegmentQueries(5, 1),
        "inputs": random(3, 4),
        "fixed_length": True,
        "skip": ("rows",),
    },
    "SegmentQueries-channels": {
        # Two rows are one window: a row alone is not an input, so there is no batch of 1.
        "layer": lambda: layers.SegmentQueries(5, 2),
        "inputs": random(6, 4),
        "fixed_length": True,
        "export": False,
        "skip": ("rows",),
    },
    "SeriesDecomposition": {
        "layer": lambda: layers.SeriesDecomposition(3),
        "inputs": random(3, T, 4),
    },
    "SinusoidalPositions": {
        "layer": lambda: layers.SinusoidalPositions(max_length=16),
        "inputs": random(3, T, 4),
        "causal": True,
    },
    "SlidingWindowAttention": {
        "layer": lambda: layers.SlidingWindowAttention(
            2, window=2, kv_heads=1, bias="relative", block=4
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "SlidingWindowAttention-causal": {
        "layer": lambda: layers.SlidingWindowAttention(2, window=2, causal=True, block=4),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
        "export": False,
    },
    "TemporalBlock": {
        "layer": lambda: layers.TemporalBlock(6, dilation=2, dropout=0.1),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
    },
    **{
        name: {
            "layer": functools.partial(getattr(layers, name), 6, return_sequences=True),
            "inputs": random(3, T, 4),
            "mask": MASK,
            "causal": True,
        }
        for name in ("GRU", "LSTM", "SimpleRNN")
    },
    "TokenDropout": {
        "layer": lambda: layers.TokenDropout(0.3),
        "inputs": TOKENS,
        "skip": ("gradients",),  # of ids there are none
    },
    "TransformerBlock": {
        "layer": lambda: layers.TransformerBlock(4, heads=2),
        "inputs": random(3, T, 4),
        "mask": MASK,
    },
    "TransformerBlock-post": {
        "layer": lambda: layers.TransformerBlock(
            4, heads=2, norm="post", causal=True, rotary=True, glu=True, max_length=16
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "causal": True,
    },
    "TransformerBlock-rms": {
        "layer": lambda: layers.TransformerBlock(
            4, heads=2, norm_kind="rms", kv_heads=1, bias="relative", qk_norm=True
        ),
        "inputs": random(3, T, 4),
        "mask": MASK,
        "export": False,  # in a file: DecoderBlock-options
    },
    "ViterbiDecode": {
        "layer": layers.ViterbiDecode,
        "inputs": random(3, T, 4, 4),
        "mask": FIRST,
        "skip": ("gradients",),  # labels have none
    },
}

# Layers with states in a dict, which the grid's arrays cannot be, or with states from one call to
# the next, and where they are tested.
ELSEWHERE = {
    "CarriedStates": "tests/layers/test_carried.py",
    "Step": "tests/layers/test_steps.py",
}


@keras.saving.register_keras_serializable(package="keras_seq_conformance")
class SelfAdditiveAttention(keras.layers.Layer):
    """Additive attention of a sequence to itself: what `causal=True` is for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, x_shape):
        self.inner = layers.AdditiveAttention(6, causal=True, dtype=self.dtype_policy)
        self.inner.build(x_shape, x_shape)

    def call(self, x, mask=None):
        return self.inner(x, x, mask=mask)

    def compute_output_shape(self, x_shape):
        return self.inner.compute_output_shape(x_shape, x_shape)


@functools.cache
def layer_checks_of(case: str) -> testing.Checks:
    arguments = dict(LAYERS[case])
    skip = arguments.pop("skip", ())
    found = testing.layer_checks(arguments.pop("layer"), arguments.pop("inputs"), **arguments)
    return {name: function for name, function in found.items() if name not in skip}


def layer_grid() -> list[Any]:
    first: dict[str, None] = {}
    for case, arguments in LAYERS.items():
        name = case.partition("-")[0]
        known = any(other.partition("-")[0] == name for other in first)
        if arguments.get("export", True) and not known:
            first[case] = None
    return [
        pytest.param(case, check, marks=marks(f"layer-{case}", check), id=f"{case}-{check}")
        for case in LAYERS
        for check in layer_checks_of(case)
        # A LiteRT file begins as a SavedModel: that of one case shows the open batch for a class.
        if check != "saved_model" or case in first
    ]


@pytest.mark.parametrize(("case", "check"), layer_grid())
def test_layer(case: str, check: str):
    layer_checks_of(case)[check]()


# ------------------------------------------------------------------------- all in one new process


@pytest.mark.slow
def test_fresh_process(tmp_path):
    """Every architecture and layer opens in a new process after `import keras_seq.layers` alone."""
    wanted = {}
    for case in (*CASES, *LAYERS):
        if case == "AdditiveAttention-causal":
            continue  # a class of this file
        architecture = case in CASES
        check = (checks_of if architecture else layer_checks_of)(case)["save"]
        subject = check.args[0]
        subject.model.save(tmp_path / f"{case}.keras")
        np.savez(tmp_path / f"{case}.npz", **subject.samples)
        wanted[case] = subject.outputs
    found = testing.outputs_in_fresh_process(tmp_path, modules=["keras_seq.layers"])
    assert found.keys() == wanted.keys()
    for case, outputs in wanted.items():
        for name, value in outputs.items():
            np.testing.assert_allclose(found[case][name], value, atol=1e-5, err_msg=case)


# ------------------------------------------------------------------------------- nothing missing


def test_every_public_layer_is_in_the_grid():
    public = {
        name
        for name in layers.__all__
        if isinstance(getattr(layers, name), type)
        and issubclass(getattr(layers, name), keras.layers.Layer)
    }
    assert {case.partition("-")[0] for case in LAYERS} | set(ELSEWHERE) == public


def test_every_layer_is_public_or_private_by_name():
    """A layer class that a module of keras_seq.layers defines is in `__all__`."""
    import importlib
    import pkgutil

    for found in pkgutil.iter_modules(layers.__path__, layers.__name__ + "."):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if (
                isinstance(value, type)
                and issubclass(value, keras.layers.Layer)
                and value.__module__ == module.__name__
                and not name.startswith("_")
            ):
                assert name in layers.__all__, f"{found.name}.{name}"


def test_every_architecture_is_in_the_grid():
    assert {case.partition("-")[0] for case in CASES} == set(ARCHITECTURES)
    assert set(ARCHITECTURES) >= {
        "linear", "mlp", "cnn", "tcn", "rnn", "lstm", "gru", "attention_rnn", "transformer",
        "patch_transformer", "inverted_transformer", "segment_rnn", "nhits", "tsmixer", "cycle",
        "bag_of_words", "fasttext", "text_cnn", "rcnn",
    }  # fmt: skip
