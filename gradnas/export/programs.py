"""Any trained network as a torch program or as ONNX, for batches of any size."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from gradnas import extras, runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.version import __version__

# The ONNX property, and with .json the extra file of a .pt2, that say what the network is, as JSON
METADATA = "gradnas"


def check_target(path: Path) -> None:
    """ValueError where a file cannot be written: its ending, a missing extra, its folder.

    This is what can be known before the work.
    """
    if path.suffix not in (".pt2", ".onnx", ".py"):
        raise ValueError(
            f"{path.name!r} must end in .pt2 (torch program), .onnx or .py (readable source)"
        )
    if path.suffix == ".onnx":
        extras.need("onnx", "onnxscript", extra="onnx", what="an .onnx file")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: no permission to write into {path.parent}")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")


def write_program(
    network: nn.Module,
    path: Path,
    *,
    inputs: Sequence[Tensor],
    batch_axes: Sequence[int],
    input_names: Sequence[str],
    output_names: Sequence[str],
    architecture: Architecture,
    facts: JsonObject,
) -> list[Path]:
    """Write a network as ONNX where `path` ends in `.onnx`, else as a torch program.

    Args:
        network: as it is to be exported: in evaluation mode, in float32, on the CPU.
        inputs: examples of what it is called with, for a batch of two at least: torch takes a size
            of 1 for a constant.
        batch_axes: of each input, the axis that the batch lies along.
        input_names, output_names: in the ONNX file.
        architecture, facts: what goes into the file beside the network; JSON values.

    Returns:
        The files written.
    """
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.export.export(
            network, tuple(inputs), dynamic_shapes=tuple({axis: batch} for axis in batch_axes)
        )
    for node in program.graph.nodes:  # source lines with the folders of this machine
        node.meta.pop("stack_trace", None)
    about = {"gradnas": __version__, "genotype": architecture.to_text(), **facts}
    if path.suffix == ".onnx":
        data = _onnx_bytes(program, json.dumps(about), batch_axes, input_names, output_names)
    else:
        data = program_bytes(program, json.dumps(about))
    runs.write_atomically(path, data)
    return [path]


def program_bytes(program: torch.export.ExportedProgram, about: str) -> bytes:
    """The file of a torch program."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={f"{METADATA}.json": about})
    return buffer.getvalue()


def _onnx_bytes(
    program: torch.export.ExportedProgram,
    about: str,
    batch_axes: Sequence[int],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> bytes:
    # The batch is one size of the program: named at the first input, it has the name everywhere.
    named_once: list[dict[int, str] | None] = [None] * len(batch_axes)
    named_once[0] = {batch_axes[0]: "batch"}
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=tuple(named_once),
        )
    assert exported is not None
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key = METADATA
    entry.value = about
    return model.SerializeToString()


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Without what torch's exporters say of themselves: their deprecated calls, that torchvision
    is absent, and the whole graph of what cannot be exported."""

    def matters(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(matters)
    of_shapes = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = of_shapes.level
    of_shapes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            # Recurrent layers list their weights anew in each call.
            warnings.filterwarnings("ignore", "The tensor attribute.* assigned during export")
            yield
    finally:
        logger.removeFilter(matters)
        of_shapes.setLevel(level)
