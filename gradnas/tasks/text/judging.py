"""Recurrent cells measured beside each other on the validation text.

A derived cell has no BatchNorm, so with the weights of a search it is another function. What is
measured is the supernet with mixing weight 1 on the operations of the architecture.

Legend: T time steps, B batch (streams of text), H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradnas.architectures.base import Architecture
from gradnas.data import TextStream
from gradnas.gradients.base import same_randomness
from gradnas.latency.counts import in_eval_mode
from gradnas.modules.draws import Draw
from gradnas.search.comparing import Judge
from gradnas.search.search import Search
from gradnas.search.verdict import Scores, Yardstick

MOST_CHUNKS = 1000


class TextJudge(Judge):
    """The mean negative log-likelihood of a token, in nats, chunk by chunk.

    Args:
        stream: the text, which is read from the top.
        length: rows of a chunk.
        train_size: tokens of a step of the weights.
    """

    yardstick = Yardstick(noun="tokens")

    def __init__(self, search: Search, stream: TextStream, length: int, train_size: int) -> None:
        self.search = search
        self.train_size = train_size
        self.chunks = []
        stream.rewind()
        while not stream.finished and len(self.chunks) < MOST_CHUNKS:
            self.chunks.append(stream.next(length))
        stream.rewind()
        self.sizes = [chunk.targets_TB.numel() for chunk in self.chunks]

    def mixture(self, batches: int) -> Scores | None:
        if not self.search.relaxation.trains_mixtures:
            return None
        return self._scores(self.search.evaluation_draw(), batches)

    def architecture(self, decision: Architecture, batches: int) -> Scores:
        return self._scores(self.search.supernet.one_hot_draw(decision), batches)

    @torch.no_grad()
    def _scores(self, draw: Draw, batches: int) -> Scores:
        supernet = self.search.supernet
        hidden_BH: Tensor | None = None
        values = []
        with same_randomness(supernet.parameters()), in_eval_mode(supernet):
            for chunk in self.chunks[:batches]:
                outputs = supernet(chunk.inputs_TB, hidden_BH, chunk.targets_TB, draw=draw)
                hidden_BH = outputs.hidden_BH
                values.append(float(outputs.nll))
        return self.scores(values, self.sizes[:batches])
