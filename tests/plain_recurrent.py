"""The recurrent models written the plain way: one time step after the other, every activation by
itself.

The reference for `gradnas.spaces.recurrent.recurrence`, in the tests and in
`benchmarks/recurrent.py`. The same parameters, and the same dropout masks from the same random
state.

Legend: T time steps, B batch, V vocabulary, H hidden units, G = 2 H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas import Genotype, RecurrentCell
from gradnas.spaces import LanguageModel, RecurrentNetwork, RecurrentSupernet
from gradnas.spaces.recurrent.recurrent_network import LanguageLoss


def normalised(s_BH: Tensor) -> Tensor:
    """torch's own BatchNorm on the statistics of the batch."""
    return F.batch_norm(s_BH, None, None, training=True)


def inverted_mask(model: LanguageModel, probability: float, *shape: int) -> Tensor | None:
    if not model.training or probability == 0.0:
        return None
    keep = 1.0 - probability
    return model.decoder_bias.new_empty(shape, requires_grad=False).bernoulli_(keep) / keep


def times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def run(
    model: LanguageModel,
    step,
    tokens_TB: Tensor,
    hidden_BH: Tensor | None,
    targets_TB: Tensor | None,
):
    """Around the cell; `step(x_BH, hidden_BH, mask_BH)` gives the next hidden state."""
    B, H, drop = tokens_TB.shape[1], model.hidden, model.dropout
    hidden_BH = (
        torch.zeros_like(model.decoder_bias[:1]).expand(B, H) if hidden_BH is None else hidden_BH
    )
    words = inverted_mask(model, drop.words, model.vocabulary, 1)
    x_TBH = F.embedding(tokens_TB, times(model.embedding.weight, words))
    x_TBH = times(x_TBH, inverted_mask(model, drop.embedding, B, H))
    input_BH, state_BH = (inverted_mask(model, p, B, H) for p in (drop.input, drop.state))
    outputs = []
    for x_BH in x_TBH:
        hidden_BH = step(times(x_BH, input_BH), hidden_BH, state_BH)
        outputs.append(hidden_BH)
    states_TBH = torch.stack(outputs)
    dropped_TBH = times(states_TBH, inverted_mask(model, drop.output, B, H))
    log_prob_TBV = F.log_softmax(
        dropped_TBH @ model.embedding.weight.t() + model.decoder_bias, dim=-1
    )
    if targets_TB is None:
        return log_prob_TBV, hidden_BH
    return LanguageLoss(
        F.nll_loss(log_prob_TBV.flatten(0, 1), targets_TB.flatten()),
        hidden_BH,
        states_TBH,
        dropped_TBH,
    )


def first_state(
    model: LanguageModel, x_BH: Tensor, hidden_BH: Tensor, mask_BH: Tensor | None
) -> Tensor:
    pre_BG = torch.cat([x_BH, times(hidden_BH, mask_BH)], dim=1) @ model.first_weight
    c_BH, h_BH = pre_BG.split(model.hidden, dim=1)
    return hidden_BH + c_BH.sigmoid() * (h_BH.tanh() - hidden_BH)


class PlainSupernet(RecurrentSupernet):
    """One product of a node for all its predecessors, as the authors have it; one pass for each
    activation."""

    def run(self, tokens_TB, hidden_BH, targets_TB, draw=None):
        probability_EO = draw.mix["recurrent"]
        names = self.space.names
        functions = self.space.functions
        H = self.hidden

        def step(x_BH, hidden_BH, mask_BH):
            states = normalised(first_state(self, x_BH, hidden_BH, mask_BH)).unsqueeze(0)
            row = 0
            for node in range(self.space.nodes):
                n = len(states)
                pre = (
                    times(states, mask_BH)
                    .reshape(-1, H)
                    .mm(self.node_weights[node])
                    .view(n, -1, 2 * H)
                )
                c, h = pre.split(H, dim=-1)
                c = c.sigmoid()
                total = torch.zeros_like(hidden_BH)
                for k, name in enumerate(names):
                    if name != "none":
                        candidate = states + c * (functions[name](h) - states)
                        total = total + (
                            probability_EO[row : row + n, k, None, None] * candidate
                        ).sum(0)
                states = torch.cat([states, normalised(total).unsqueeze(0)])
                row += n
            return states[1:].mean(0)

        return run(self, step, tokens_TB, hidden_BH, targets_TB)


class PlainNetwork(RecurrentNetwork):
    """The cell of a genotype, node after node."""

    def run(self, tokens_TB, hidden_BH, targets_TB, draw=None):
        def step(x_BH, hidden_BH, mask_BH):
            states = [first_state(self, x_BH, hidden_BH, mask_BH)]
            for node, (f, p) in enumerate(zip(self.activations, self.predecessors, strict=True)):
                c_BH, h_BH = (times(states[p], mask_BH) @ self.node_weights[node]).split(
                    self.hidden, dim=1
                )
                states.append(states[p] + c_BH.sigmoid() * (f(h_BH) - states[p]))
            return torch.stack([states[i] for i in self.concat]).mean(0)

        return run(self, step, tokens_TB, hidden_BH, targets_TB)


def plain_supernet(space: RecurrentCell, vocabulary: int) -> PlainSupernet:
    return PlainSupernet(space, vocabulary)


def plain_network(space: RecurrentCell, genotype: Genotype, vocabulary: int) -> PlainNetwork:
    return PlainNetwork(
        genotype.recurrent,
        genotype.concat,
        vocabulary=vocabulary,
        hidden=space.hidden,
        dropout=space.dropout,
        activations=space.functions,
    )
