"""BERT from a configuration: activations to choose, layers and attention to leave out."""

import torch
import transformers
from torch import nn

import gradnas


def model():
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    net = transformers.BertForSequenceClassification(config)
    gradnas.replace(net, "*.attention", lambda old: {"keep": old, "skip": gradnas.Skip()})
    gradnas.replace(net, "*.intermediate_act_fn", lambda old: {"gelu": old, "tanh": nn.Tanh()})
    return gradnas.replace(
        net, "bert.encoder.layer.?", lambda old: {"keep": old, "skip": gradnas.Skip()}
    )


def loss(net, batch):
    return net(**batch).loss


def accuracy(net, batch):
    return gradnas.accuracy(net(**batch).logits, batch["labels"])


def task():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (24, 6), generator=generator)
    length = torch.randint(3, 7, (24, 1), generator=generator)
    mask = (torch.arange(6) < length).long()
    rows = {"input_ids": ids, "attention_mask": mask, "labels": ids[:, 0] % 2}
    return gradnas.Task(
        model=model,
        train={name: value[:16] for name, value in rows.items()},
        test={name: value[16:] for name, value in rows.items()},
        loss=loss,
        measures={"accuracy": accuracy},
        example=gradnas.Call(input_ids=ids[:1], attention_mask=mask[:1]),
    )
