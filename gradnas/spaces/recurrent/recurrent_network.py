"""Language models around a recurrent cell: what all share, and the plain network of a genotype.

Legend: T time steps, B batch (streams of text), V vocabulary, E embedding, H hidden units (= E: the
decoder is tied), G = 2 H, N nodes.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.config import did_you_mean
from gradnas.modules.draws import Draw
from gradnas.spaces.recurrent.native_derived import run_derived_cell
from gradnas.spaces.recurrent.recurrence import ACTIVATIONS, Activation
from gradnas.spaces.recurrent.token_loss import run_token_loss

INIT = 0.04  # weights start uniform in [-INIT, INIT], as in the original


@dataclass(frozen=True)
class RecurrentDropout:
    """Dropout probabilities of a language model.

    Masks are divided by what they keep, and made once for each chunk: all its time steps share
    them (the variational dropout of Gal and Ghahramani).

    Args:
        output: of the cell's outputs, one mask for all time steps ("dropout" of the original).
        state: of the hidden state and of every state that a node reads ("dropouth").
        input: of the cell's input ("dropoutx").
        embedding: of the embedded words ("dropouti").
        words: of whole words of the vocabulary ("dropoute").

    Sources: Gal and Ghahramani (arXiv 1512.05287); Merity, Keskar, Socher (arXiv 1708.02182); as in
    DARTS' code.
    """

    output: float = 0.0
    state: float = 0.0
    input: float = 0.0
    embedding: float = 0.0
    words: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"dropout {field.name!r} must be in [0, 1), not {value}")


class LanguageLoss(NamedTuple):
    """What a language model gives when it is told the targets: not all the probabilities."""

    nll: Tensor  # scalar: mean negative log-likelihood of the targets, nats
    hidden_BH: Tensor
    states_TBH: Tensor  # the cell's outputs
    dropped_TBH: Tensor  # the same after dropout: what the decoder reads


class LanguageModel(nn.Module, ABC):
    """Embedding, dropout, one recurrent layer, and a decoder tied to the embedding.

    `(tokens_TB, hidden_BH)` to `(log_prob_TBV, hidden_BH)`.
    """

    def __init__(self, vocabulary: int, hidden: int, nodes: int, dropout: RecurrentDropout) -> None:
        super().__init__()
        if not isinstance(vocabulary, int) or vocabulary < 2:
            raise ValueError(f"vocabulary is a number of tokens of at least 2, not {vocabulary!r}")
        self.vocabulary = vocabulary
        self.hidden = hidden
        self.dropout = dropout
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary))
        # Rows: input, then hidden state
        self.first_weight = nn.Parameter(torch.empty(2 * hidden, 2 * hidden))
        self.node_weights = nn.Parameter(torch.empty(nodes, hidden, 2 * hidden))
        for weight in (self.embedding.weight, self.first_weight, self.node_weights):
            nn.init.uniform_(weight, -INIT, INIT)

    def initial_hidden(self, batch: int) -> Tensor:
        """The state before a text begins: zeros (B, H)."""
        return self.decoder_bias.new_zeros(batch, self.hidden)

    @abstractmethod
    def recur(
        self, mask_BH: Tensor | None, input_TBG: Tensor, hidden_BH: Tensor, draw: Any
    ) -> Tensor:
        """The cell's outputs (T, B, H), given the input's part of the first pre-activations."""

    def run(
        self,
        tokens_TB: Tensor,
        hidden_BH: Tensor | None,
        targets_TB: Tensor | None,
        draw: Draw | None = None,
    ) -> Any:
        """The whole model; see `forward`."""
        hidden_BH = self._checked(tokens_TB, hidden_BH)
        if targets_TB is not None and targets_TB.shape != tokens_TB.shape:
            raise ValueError(
                f"targets of the shape {tuple(tokens_TB.shape)} are needed, "
                f"not {tuple(targets_TB.shape)}"
            )
        B = tokens_TB.shape[1]
        H = self.hidden
        drop = self.dropout

        x_TBE = self.embedding(tokens_TB)
        # Whole words of the vocabulary are dropped, wherever in the chunk they stand.
        words_V1 = self._mask(drop.words, self.vocabulary, 1)
        if words_V1 is not None:
            x_TBE = x_TBE * words_V1[tokens_TB]
        for probability in (drop.embedding, drop.input):
            mask_BE = self._mask(probability, B, H)
            if mask_BE is not None:
                x_TBE = x_TBE * mask_BE

        state_mask_BH = self._mask(drop.state, B, H)
        # The input's product for all time steps at once; the hidden state's has to wait for its
        # turn.
        input_TBG = x_TBE @ self.first_weight[:H]
        states_TBH = self.recur(state_mask_BH, input_TBG, hidden_BH, draw)
        output_mask_BH = self._mask(drop.output, B, H)
        dropped_TBH = states_TBH
        if output_mask_BH is not None:
            dropped_TBH = states_TBH * output_mask_BH

        weight_VH = self.embedding.weight
        if targets_TB is None:
            logits_TBV = F.linear(dropped_TBH, weight_VH, self.decoder_bias)
            return F.log_softmax(logits_TBV, dim=-1), states_TBH[-1]
        nll = run_token_loss(
            dropped_TBH.flatten(0, 1), weight_VH, self.decoder_bias, targets_TB.flatten()
        )
        return LanguageLoss(nll, states_TBH[-1], states_TBH, dropped_TBH)

    def _mask(self, probability: float, *shape: int) -> Tensor | None:
        """A dropout mask; None outside training and for probability 0."""
        if not self.training or probability == 0.0:
            return None
        keep = 1.0 - probability
        mask = self.decoder_bias.new_empty(shape, requires_grad=False)
        return mask.bernoulli_(keep).div_(keep)

    def _checked(self, tokens_TB: Tensor, hidden_BH: Tensor | None) -> Tensor:
        are_whole = tokens_TB.dtype in (torch.int64, torch.int32)
        if tokens_TB.dim() != 2 or not are_whole or not tokens_TB.shape[0]:
            raise ValueError(
                "tokens are whole numbers of shape (time steps, batch), at least one step, not "
                f"{tokens_TB.dtype} {tuple(tokens_TB.shape)}"
            )
        B = tokens_TB.shape[1]
        if hidden_BH is None:
            return self.initial_hidden(B)
        wanted = (B, self.hidden)
        if tuple(hidden_BH.shape) != wanted:
            raise ValueError(
                f"the hidden state of {B} texts has the shape {wanted}, "
                f"not {tuple(hidden_BH.shape)}"
            )
        return hidden_BH


def check_known(edges: Sequence[tuple[str, int]], known: Mapping[str, Activation]) -> None:
    """ValueError, with the nearest name, for an edge whose activation is not known."""
    for name, _ in edges:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"unknown activation {name!r} in the cell{hint}")


class RecurrentNetwork(LanguageModel):
    """The plain network of a recurrent genotype.

    Args:
        edges: (activation, predecessor) of node 1, 2, ...; predecessor 0 is the first state.
        concat: the nodes whose mean is the output.
        activations: name -> function for names that are not known.

    Raises:
        ValueError: an unknown activation (the nearest name is given), less than two tokens.
    """

    def __init__(
        self,
        edges: Sequence[tuple[str, int]],
        concat: Sequence[int],
        *,
        vocabulary: int,
        hidden: int,
        dropout: RecurrentDropout = RecurrentDropout(),
        activations: Mapping[str, Activation] | None = None,
    ) -> None:
        known = {**ACTIVATIONS, **(activations or {})}
        check_known(edges, known)
        super().__init__(vocabulary, hidden, len(edges), dropout)
        self.names = tuple(name for name, _ in edges)
        self.predecessors = tuple(predecessor for _, predecessor in edges)
        self.concat = tuple(concat)
        self.activations = tuple(known[name] for name in self.names)

    def forward(
        self, tokens_TB: Tensor, hidden_BH: Tensor | None = None, targets_TB: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | LanguageLoss:
        """`(log_prob_TBV, hidden_BH)`: log probabilities of the next token, and the state after it.

        Logarithms are natural ones.

        Args:
            tokens_TB: int64; each column is a text.
            hidden_BH: the state before; None for the beginning of a text.
            targets_TB: the next tokens; given them, the result is a `LanguageLoss`.

        Raises:
            ValueError: a shape that does not fit.
        """
        return self.run(tokens_TB, hidden_BH, targets_TB)

    def recur(
        self, mask_BH: Tensor | None, input_TBG: Tensor, hidden_BH: Tensor, draw: Any
    ) -> Tensor:
        del draw
        return run_derived_cell(
            self.names,
            self.activations,
            self.predecessors,
            self.concat,
            mask_BH,
            input_TBG,
            hidden_BH,
            self.first_weight[self.hidden :],
            self.node_weights,
        )
