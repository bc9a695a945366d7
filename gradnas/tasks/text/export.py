"""Trained language models for use elsewhere: they read one token and hand on their state.

Legend: B batch, V vocabulary, H hidden units. What is exported is the network in evaluation mode,
in float32: `tokens (1, B)` and `hidden (B, H)` to `log_prob (1, B, V)` and the next `hidden (B,
H)`, for any B; zeros begin a text.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from gradnas.architectures.genotype import Genotype
from gradnas.data import Vocabulary
from gradnas.export.programs import check_target, write_program
from gradnas.spaces import RecurrentNetwork


def export_language_model(
    model: RecurrentNetwork, vocabulary: Vocabulary, path: str | Path, *, genotype: Genotype
) -> list[Path]:
    """Write a language model in the form that the ending of `path` names; the model is not changed.

    - `.pt2`: a torch program, for `torch.export.load(path).module()`.
    - `.onnx`: needs the extra `onnx`; inputs `tokens`, `hidden`, outputs `log_prob`, `next_hidden`.

    Vocabulary and genotype go into the file, as those of images do.

    Returns:
        The files written.

    Raises:
        ValueError: another ending; a folder that is missing or not writable; a missing extra; a
            vocabulary or genotype that is not the model's.
    """
    path = Path(path)
    check_target(path)
    if path.suffix == ".py":
        raise ValueError("a language model cannot be written as source: export to .pt2 or .onnx")
    if len(vocabulary) != model.vocabulary:
        raise ValueError(
            f"the model knows {model.vocabulary} tokens, but the vocabulary has {len(vocabulary)}"
        )
    edges = tuple(zip(model.names, model.predecessors, strict=True))
    is_its_cell = genotype.kind == "recurrent" and genotype.recurrent == edges
    if not is_its_cell or genotype.concat != model.concat:
        raise ValueError("the model is not the one of this genotype")
    tokens_TB = torch.zeros(1, 2, dtype=torch.int64)
    hidden_BH = torch.zeros(2, model.hidden)
    return write_program(
        copy.deepcopy(model).to("cpu", torch.float32).eval(),
        path,
        inputs=(tokens_TB, hidden_BH),
        batch_axes=(1, 0),
        input_names=("tokens", "hidden"),
        output_names=("log_prob", "next_hidden"),
        architecture=genotype,
        facts={"vocabulary": vocabulary.to_json()},
    )
