"""A vision transformer from a configuration, its outputs are an object with logits."""

import torch
import torch.nn.functional as F
import transformers
from torch import nn

import gradnas


def model():
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    net = transformers.ViTForImageClassification(config)
    return gradnas.replace(
        net,
        "*.mlp",
        lambda old: {"keep": old, "linear": nn.Linear(8, 8), "skip": gradnas.Skip()},
    )


def loss(outputs, target):
    return F.cross_entropy(outputs.logits, target)


def accuracy(outputs, target):
    return gradnas.accuracy(outputs.logits, target)


def task():
    x = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = x.view(24, 4, 16).mean(2)[:, :3].argmax(1)
    return gradnas.Task(
        model=model,
        train=(x[:16], y[:16]),
        test=(x[16:], y[16:]),
        loss=loss,
        measures={"accuracy": accuracy},
    )
