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


def rows(number):
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(1, 30, (number, 6), generator=generator)
    length = torch.randint(3, 7, (number, 1), generator=generator)
    mask = (torch.arange(6) < length).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids[:, 0] % 2}


def task():
    one = rows(1)
    return gradnas.Task(
        model=model,
        train=rows(16),
        test=rows(8),
        loss=loss,
        measures={"accuracy": accuracy},
        example=gradnas.Call(input_ids=one["input_ids"], attention_mask=one["attention_mask"]),
    )
