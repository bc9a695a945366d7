"""GPT-2 from a configuration: narrower feed-forward blocks, attention to leave out."""

import torch
import torch.nn.functional as F
import transformers
from torch import nn

import gradnas

WIDTH = 8


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH)

    def forward(self, hidden_states):
        return self.down(F.gelu(self.up(hidden_states)))


def model():
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=12, use_cache=False
    )
    net = transformers.GPT2LMHeadModel(config)
    gradnas.replace(net, "*.attn", lambda old: {"keep": old, "skip": gradnas.Skip()})
    return gradnas.replace(net, "*.mlp", lambda old: {"wide": old, "narrow": Narrow()})


def loss(net, batch):
    return net(input_ids=batch, labels=batch).loss


def task():
    text = (torch.arange(240) * 3) % 20
    return gradnas.Task(
        model=model,
        train=text[:160].view(16, 10),
        test=text[160:].view(8, 10),
        loss=loss,
        example=gradnas.Call(input_ids=text[:10].view(1, 10)),
    )
