"""Trained language models for use elsewhere: a torch program or ONNX that reads one token and hands
on its state.

Legend: B batch, V vocabulary, H hidden units. What is exported is the network in evaluation mode,
in float32: `tokens (1, B)` and `hidden (B, H)` to `log_prob (1, B, V)` and the next `hidden (B,
H)`, for any B; zeros begin a text.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from gradnas import __version__, runs
from gradnas.architectures.genotype import Genotype
from gradnas.data import Vocabulary
from gradnas.export.programs import (
    check_target,
    onnx_bytes,
    program_bytes,
    quiet,
)
from gradnas.spaces import RecurrentNetwork


def export_language_model(
    model: RecurrentNetwork, vocabulary: Vocabulary, path: str | Path, *, genotype: Genotype
) -> list[Path]:
    """Write a language model in the form that the ending of `path` names; the model itself is not
    changed.

    - `.pt2`: a torch program, for `torch.export.load(path).module()`.
    - `.onnx`: needs the extra `onnx`; inputs `tokens`, `hidden`, outputs `log_prob`, `next_hidden`.

    Vocabulary and genotype go into the file, as those of images do.

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
    if genotype.kind != "recurrent" or (genotype.recurrent, genotype.concat) != (
        edges,
        model.concat,
    ):
        raise ValueError("the model is not the one of this genotype")
    plain = copy.deepcopy(model).to("cpu", torch.float32).eval()
    example = (
        torch.zeros(1, 2, dtype=torch.int64),
        torch.zeros(2, model.hidden),
    )  # torch takes a 1 for a constant
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.export.export(plain, example, dynamic_shapes=({1: batch}, {0: batch}))
    for node in program.graph.nodes:  # source lines with the folders of this machine
        node.meta.pop("stack_trace", None)
    about = {
        "gradnas": __version__,
        "genotype": genotype.to_text(),
        "vocabulary": vocabulary.to_json(),
    }
    text = json.dumps(about)
    if path.suffix == ".onnx":
        shapes = ({1: "batch"}, None)  # the other input has the same
        data = onnx_bytes(program, text, ("tokens", "hidden"), ("log_prob", "next_hidden"), shapes)
    else:
        data = program_bytes(program, text)
    runs.write_atomically(path, data)
    return [path]
