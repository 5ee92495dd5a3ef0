"""A small model server for a laptop: TensorFlow Serving's protocols over exported folders.

It answers over REST and gRPC as TensorFlow Serving does, so that a client written against it goes
on to work against the official container, which is what large use wants.

Importing this package loads neither TensorFlow nor what the extra ``serve`` brings.
"""

from __future__ import annotations

from keras_seq.lazy import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Options": "options",
        "Server": "server",
        "ServingError": "failures",
        "serve": "server",
        "serving": "server",
    },
)
