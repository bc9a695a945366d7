"""A small GPT-2 of Hugging Face, with choices put into it by name.

    gradnas search examples/language_model.py --epochs 3 --alpha-lr 0.02 --out runs/gpt2

Nothing of the model is written here: `gradnas.replace` puts a choice in the place of every layer's
feed-forward part (as it is, narrow, or skipped) and of every attention (as it is, or skipped). The
text is that of Python's own help, by characters. Needs `pip install transformers`.
"""

from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import gradnas

WIDTH, LENGTH, CHARACTERS = 32, 48, 96


def narrow() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))


def model() -> nn.Module:
    config = GPT2Config(
        vocab_size=CHARACTERS,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    gpt2 = GPT2LMHeadModel(config)
    gradnas.replace(
        gpt2, "*.mlp", lambda mlp: {"keep": mlp, "narrow": narrow(), "skip": gradnas.Skip()}
    )
    gradnas.replace(gpt2, "*.attn", lambda attn: {"keep": attn, "skip": gradnas.Skip()})
    return gpt2


def loss(net, batch):
    (ids,) = batch
    logits = net(input_ids=ids).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def bits(net, batch):
    """Bits a character."""
    return loss(net, batch).item() / 0.6931


def task() -> gradnas.Task:
    text = " ".join(topics[name] for name in sorted(topics))[: 640 * LENGTH]
    codes = torch.tensor([max(0, min(ord(letter) - 31, CHARACTERS - 1)) for letter in text])
    lines = codes.view(-1, LENGTH)
    return gradnas.Task(
        model=model,
        train=(lines[:576],),
        test=(lines[576:],),
        loss=loss,
        measures={"bits": gradnas.lower(bits)},
        example=gradnas.Call(input_ids=lines[:1]),
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=3e-3),
    )
