"""From names and folders to batches.

Text has its own words: `text.load_corpus` gives a `Corpus`, `chunks.TextStream` gives chunks of it.
Images:

`load_images` gives an `ImageData` with two `Split`s; `Split.batches` gives `Batches`;
`Batches.epoch` gives tensors. Within the room imports go down: `summary` and `fingerprint` (of data
of any kind), `augment`, `base` (torch and numpy alone), `memory` and `stream` (decoding while
training, with notes in `seen`), `names`, the kinds of sources `folder` (with `files`), `parquet`
(with `shards`, `labels`, `rows`) and `hub`, `image_set`, which finds one, `classes` and
`suspicious`, which check it, the sets `digits`, `cifar10`, `images`, then `load`, which picks one,
and `config`. Pillow, pyarrow, scikit-learn and `datasets` are imported when a set that needs them
is loaded.
"""

from __future__ import annotations

from gradnas.data.augment import Augment
from gradnas.data.base import Batches, ImageData, Split, balanced, halves, stratified
from gradnas.data.chunks import Chunk, ChunkLengths, TextStream
from gradnas.data.config import DataConfig, describe
from gradnas.data.load import load_images
from gradnas.data.memory import MemorySplit
from gradnas.data.stream import StreamSplit
from gradnas.data.text import Corpus, TextConfig, Vocabulary, load_corpus

__all__ = [
    "Augment",
    "Batches",
    "Chunk",
    "ChunkLengths",
    "Corpus",
    "DataConfig",
    "ImageData",
    "MemorySplit",
    "Split",
    "StreamSplit",
    "balanced",
    "TextConfig",
    "TextStream",
    "Vocabulary",
    "describe",
    "halves",
    "load_corpus",
    "load_images",
    "stratified",
]
