"""Layers: one, or one tight family, a file; all of them can be saved, loaded and masked.

Importing this module registers every layer, so that `keras.saving.load_model` can open a model
that holds one.
"""

from __future__ import annotations

from keras_seq.layers.alignment import Alignment, AlignmentKeys, coverage_loss
from keras_seq.layers.attention import AdditiveAttention, MultiHeadAttention
from keras_seq.layers.attention_decoder import AttentionDecoder
from keras_seq.layers.attention_weights import causal_mask, masked_softmax
from keras_seq.layers.bag import EmbeddingBag
from keras_seq.layers.blockwise import blockwise_attention
from keras_seq.layers.carried import CarriedStates, can_carry, carry_states, forget_states
from keras_seq.layers.class_token import ClassToken
from keras_seq.layers.covariates import CovariateEffect
from keras_seq.layers.crf import CRFMarginals, CRFPotentials, ViterbiDecode
from keras_seq.layers.cross_attention import CrossAttention, MemoryProjection
from keras_seq.layers.cycle import LearnedCycle
from keras_seq.layers.decomposition import SeriesDecomposition
from keras_seq.layers.dot_product import dot_product_attention
from keras_seq.layers.dropout import Dropout
from keras_seq.layers.encoder_output import EncoderOutput
from keras_seq.layers.gated_convolution import GatedConvolution
from keras_seq.layers.interpolation import LinearInterpolation
from keras_seq.layers.likelihood import SampledLikelihood
from keras_seq.layers.linear_recurrence import linear_scan
from keras_seq.layers.long_attention import BlockwiseAttention, SlidingWindowAttention
from keras_seq.layers.masking import ApplyMask, zero_masked
from keras_seq.layers.min_gru import MinGRU
from keras_seq.layers.multi_step_attention import MultiStepAttention
from keras_seq.layers.naive_bayes import NaiveBayesScores
from keras_seq.layers.ngrams import HashedNGrams
from keras_seq.layers.patches import LearnedOffset, Patches, SegmentQueries
from keras_seq.layers.pooling import Pooling
from keras_seq.layers.positions import (
    LearnedPositions,
    RotaryPositions,
    SinusoidalPositions,
    rotary_table,
    sinusoid_table,
)
from keras_seq.layers.quantiles import OrderedQuantiles
from keras_seq.layers.recurrent import GRU, LSTM, SimpleRNN, recurrent_stack
from keras_seq.layers.relative_bias import (
    AlibiBias,
    RelativeBias,
    RelativeBiasTable,
    alibi_slopes,
    bucket_table,
)
from keras_seq.layers.reversible_normalization import (
    LastObserved,
    ReverseNormalization,
    ReversibleNormalization,
)
from keras_seq.layers.sliding_window import sliding_window_attention
from keras_seq.layers.state_space import DiagonalStateSpace
from keras_seq.layers.steps import Step, search_shapes, step_shapes
from keras_seq.layers.tcn import TemporalBlock, receptive_field
from keras_seq.layers.tokens import TokenDropout
from keras_seq.layers.transformer import FeedForward, TransformerBlock
from keras_seq.layers.transformer_decoder import DecoderBlock

__all__ = [
    "GRU",
    "LSTM",
    "AdditiveAttention",
    "AlibiBias",
    "Alignment",
    "AlignmentKeys",
    "ApplyMask",
    "AttentionDecoder",
    "BlockwiseAttention",
    "CRFMarginals",
    "CRFPotentials",
    "CarriedStates",
    "ClassToken",
    "CovariateEffect",
    "CrossAttention",
    "DecoderBlock",
    "DiagonalStateSpace",
    "Dropout",
    "EmbeddingBag",
    "EncoderOutput",
    "FeedForward",
    "GatedConvolution",
    "HashedNGrams",
    "LastObserved",
    "LearnedCycle",
    "LearnedOffset",
    "LearnedPositions",
    "LinearInterpolation",
    "MemoryProjection",
    "MinGRU",
    "MultiHeadAttention",
    "MultiStepAttention",
    "NaiveBayesScores",
    "OrderedQuantiles",
    "Patches",
    "Pooling",
    "RelativeBias",
    "RelativeBiasTable",
    "ReverseNormalization",
    "ReversibleNormalization",
    "RotaryPositions",
    "SampledLikelihood",
    "SegmentQueries",
    "SeriesDecomposition",
    "SimpleRNN",
    "SinusoidalPositions",
    "SlidingWindowAttention",
    "Step",
    "TemporalBlock",
    "TokenDropout",
    "TransformerBlock",
    "ViterbiDecode",
    "alibi_slopes",
    "blockwise_attention",
    "bucket_table",
    "can_carry",
    "carry_states",
    "causal_mask",
    "coverage_loss",
    "dot_product_attention",
    "forget_states",
    "linear_scan",
    "masked_softmax",
    "receptive_field",
    "recurrent_stack",
    "rotary_table",
    "search_shapes",
    "sinusoid_table",
    "sliding_window_attention",
    "step_shapes",
    "zero_masked",
]
