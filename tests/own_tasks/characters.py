"""The next character, by an LSTM or a GRU that carries its state from one piece to the next."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def cut(state):
    """Truncated: no gradient goes back beyond a piece."""
    return tuple(map(cut, state)) if isinstance(state, tuple) else state.detach()


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(6, 8, batch_first=True)

    def forward(self, x):
        state = None  # a pair of an LSTM, one tensor of the others
        outputs = []
        for piece in x.split(4, dim=1):
            output, state = self.cell(piece, state)
            outputs.append(output)
            state = cut(state)
        return torch.cat(outputs, dim=1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        kinds = {"lstm": Recurrent(nn.LSTM), "gru": Recurrent(nn.GRU), "rnn": Recurrent(nn.RNN)}
        self.cell = gradnas.Choice(kinds, name="cell")
        self.decoder = nn.Linear(8, 12)

    def forward(self, ids_BT):
        return self.decoder(self.cell(self.embedding(ids_BT))).transpose(1, 2)


def task():
    text = (torch.arange(481) * 5) % 12
    ids, following = text[:480].view(40, 12), text[1:].view(40, 12)
    return gradnas.Task(
        model=Net,
        train=(ids[:30], following[:30]),
        test=(ids[30:], following[30:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy, "loss_in_bits": gradnas.lower(bits)},
    )


def bits(outputs, target):
    return F.cross_entropy(outputs, target) / torch.log(torch.tensor(2.0))
