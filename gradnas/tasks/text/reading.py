"""Reading a text with a hidden state: chunk after chunk, or once from the top to evaluate a model.

Legend: T time steps, B batch (streams of text), H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradnas import distributed, runs
from gradnas.config import read_object
from gradnas.data import Chunk, Corpus, TextStream, Vocabulary
from gradnas.data.base import Plan
from gradnas.randomness import seed_for
from gradnas.runs import State
from gradnas.spaces.recurrent.recurrent_network import LanguageLoss
from gradnas.tasks.evaluation import Means
from gradnas.tasks.place import Place

VOCABULARY = runs.VOCABULARY


class CarriedStream:
    """A stream and the hidden state that belongs to its position.

    That is what a model was left with by all text before it.
    """

    def __init__(self, stream: TextStream) -> None:
        self.stream = stream
        self.hidden_BH: Tensor | None = None  # None: the beginning of the text

    def next(self, length: int) -> Chunk:
        """The next chunk; at the top of the text the hidden state is put back to nothing."""
        chunk = self.stream.next(length)
        if chunk.starts:
            self.hidden_BH = None
        return chunk

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {"stream": self.stream.state_dict(), "hidden": self.hidden_BH}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self.stream.load_state_dict(state["stream"])
        hidden = state["hidden"]
        self.hidden_BH = None if hidden is None else hidden.to(self.stream.data_RB.device)


class TextPlace(Place):
    """A place in a text that is read once in an epoch, as if all chunks had the base length.

    Some more steps than there will be: a short chunk is followed by one more.
    """

    def __init__(self, stream: TextStream, base: int) -> None:
        self.stream = stream
        self.base = base
        self.steps_per_epoch = -(-stream.rows // base)

    @property
    def steps_done(self) -> int:
        return 0 if self.stream.finished else self.stream.row // self.base

    @property
    def at_start(self) -> bool:
        return self.stream.row == 0 or self.stream.finished

    @property
    def epoch_done(self) -> bool:
        return self.stream.finished


@torch.no_grad()
def evaluate_text(
    model: Callable[[Tensor, Tensor | None, Tensor], LanguageLoss],
    stream: TextStream,
    length: int = 70,
) -> dict[str, float]:
    """Mean negative log-likelihood `loss` (nats for each token) and `perplexity` of a text.

    It is read once, from the top.

    Every target counts once. The caller sets the module's mode.

    Args:
        model: `(tokens_TB, hidden_BH, targets_TB)` to a `LanguageLoss`.
        length: rows of a chunk; without dropout it changes nothing but the speed.
    """
    means = Means()
    hidden_BH: Tensor | None = None
    stream.rewind()
    while not stream.finished:
        chunk = stream.next(length)
        outputs = model(chunk.inputs_TB, hidden_BH, chunk.targets_TB)
        hidden_BH = outputs.hidden_BH
        means.add({"loss": outputs.nll}, chunk.targets_TB.numel())
    return with_perplexity(means)


def with_perplexity(means: Means) -> dict[str, float]:
    """The mean loss, and the perplexity that it stands for."""
    loss = means.values()["loss"]
    return {"loss": loss, "perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """`exp` of a loss in nats for each token.

    A loss beyond 300 counts as one of 300, so that files can hold it.
    """
    return math.exp(min(loss, 300.0))


def read_vocabulary(run: runs.Run) -> Vocabulary:
    """The vocabulary that a run began with; ValueError where its file is damaged."""
    path = run.path / VOCABULARY
    return Vocabulary.from_json(read_object(path), str(path))


def write_vocabulary(run: runs.Run, corpus: Corpus) -> None:
    """Into a new run folder; with how often each token stands in the training text."""
    counts = torch.bincount(corpus.train, minlength=len(corpus.vocabulary))
    described = {**corpus.vocabulary.to_json(), "counts": counts.tolist()}
    runs.write_json(run.path / VOCABULARY, described)


def most_frequent(run: runs.Run, vocabulary: Vocabulary) -> str | None:
    """The token that stands most often in the training text; None where its folder is older."""
    counts = read_object(run.path / VOCABULARY).get("counts")
    if not isinstance(counts, list) or len(counts) != len(vocabulary):
        return None
    if not all(type(count) is int for count in counts):
        raise ValueError(f"{run.path / VOCABULARY}: 'counts' must be a list of whole numbers")
    return vocabulary.tokens[counts.index(max(counts))]


def unknown_share(stream: TextStream, vocabulary: Vocabulary) -> float:
    """Which share of the tokens that are predicted in a text is the sign for unknown ones."""
    if vocabulary.unknown is None:
        return 0.0
    return float((stream.data_RB[1:] == vocabulary.unknown).double().mean())


def shared_stream(tokens_N: Tensor, columns: int, device: torch.device, name: str) -> TextStream:
    """A stream of which each of several processes reads its share of the columns.

    Raises:
        ValueError: fewer columns than processes.
    """
    world = distributed.world()
    if columns < world:
        raise ValueError(
            f"{columns} texts side by side cannot be shared by {world} processes: use a larger "
            "batch_size or fewer processes"
        )
    return TextStream(tokens_N, columns, device, name, own_columns(columns))


def own_columns(columns: int) -> slice:
    """Which of so many texts side by side are this process's."""
    plan = Plan(columns, columns, False, 0, distributed.rank(), distributed.world())
    return plan.share(columns)


def noise_seed(seed: int, stream: int) -> int:
    """Of the dropout of this process; that of the first is that of a single one."""
    rank = distributed.rank()
    return seed_for(seed, stream, rank) if rank else seed_for(seed, stream)


def joined_hidden(states: Sequence[State], own: slice) -> Tensor | None:
    """The hidden state of some columns, from the states that all ranks had for theirs."""
    parts = [state["hidden"] for state in states]
    if any(part is None for part in parts):
        return None
    return torch.cat(parts)[own]
