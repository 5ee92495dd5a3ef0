"""What a training run writes for TensorBoard: the same tags for every architecture."""

from __future__ import annotations

from keras_seq.callbacks.scores import log_scores, write_experiment
from keras_seq.callbacks.tensorboard import TensorBoard, write_figures
from keras_seq.callbacks.texts import markdown_table

__all__ = ["TensorBoard", "log_scores", "markdown_table", "write_experiment", "write_figures"]
