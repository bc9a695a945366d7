"""What of each file that `golden.py` finds must stay the same, and its hash.

Left out, because they differ between two runs of the same tree:
  environment.json    commit, platform, command line
  timings.jsonl       seconds and measured memory: its epochs and names are hashed, not the values
  checkpoint.pt       hashed by content, without the length of timings.jsonl; that before the last,
                      of a run that was stopped, is of the moment at which it was stopped
  exported .py        hashed by constants, weights and logits: it quotes our own source
  --help              hashed by its words: its lines break where those of our source do
  .onnx, .pt2         hashed by graph and weights: both say where in the source a node came from
  stderr              without Python's warnings, which name files and lines, and the time left; of
                      the runs that are stopped and resumed, without the lines of epochs
  report.html         without its table of the environment; times and memory are replaced by #
  measured latencies  later runs use the measured table with a fixed time in the place of each
  --estimate          numbers are replaced by #, as is the time of a next step
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from golden_inputs import INPUTS

Hash = str


def short(data: bytes) -> Hash:
    """The first 16 digits of sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def canonical(value: Any, path: str = "") -> Iterable[bytes]:
    """Tensors and plain values as bytes, with their types, names and order."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{path} tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"{path} mapping {len(value)}".encode()
        for name, item in value.items():
            yield from canonical(item, f"{path}/{name!r}")
    elif isinstance(value, list | tuple):
        yield f"{path} {type(value).__name__} {len(value)}".encode()
        for number, item in enumerate(value):
            yield from canonical(item, f"{path}/{number}")
    else:
        assert value is None or isinstance(value, bool | int | float | str), (path, type(value))
        yield f"{path} {value!r}".encode()


def tree_hash(value: Any) -> Hash:
    """Of nested tensors and plain values."""
    return short(b"\n".join(canonical(value)))


def checkpoint_content(path: Path) -> bytes:
    """Saved tensors and values; of a checkpoint without the length of the timings."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if "lengths" in saved:
        del saved["lengths"]["timings.jsonl"]
    return b"\n".join(canonical(saved))


def safetensors_content(path: Path) -> bytes:
    """Names, types, shapes, bytes, and the words beside them."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return b"\n".join(canonical([file.metadata(), tensors]))


def onnx_content(path: Path) -> bytes:
    """The graph without the notes of where in the source each node came from."""
    import onnx

    model = onnx.load(str(path))
    parts: list[Any] = [model, model.graph, *model.functions]
    while parts:
        part = parts.pop()
        del part.metadata_props[:]
        part.doc_string = ""
        for name in ("value_info", "input", "output", "initializer", "node"):
            # inputs and outputs of functions and nodes are plain words
            parts += [item for item in getattr(part, name, ()) if not isinstance(item, str)]
        parts += [item.g for item in getattr(part, "attribute", ()) if item.HasField("g")]
    return model.SerializeToString(deterministic=True)


def program_content(path: Path) -> bytes:
    """The nodes of an exported torch program, its signature and its state."""
    program = torch.export.load(path)
    lines = [f"{node.op} {node.target} {node.args} {node.kwargs}" for node in program.graph.nodes]
    lines += [str(program.graph_signature), str(program.range_constraints)]
    return "\n".join(lines).encode() + b"\n".join(canonical(dict(program.state_dict)))


def source_content(path: Path) -> bytes:
    """What an exported source file says and computes: its constants, weights, and logits.

    Its classes are quoted from the library's own source, so their layout follows that of the
    library.
    """
    spec = importlib.util.spec_from_file_location(f"golden_{path.parent.name}", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    constants = {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str | int | float | tuple | list)
    }
    network = module.load()
    side = module.IMAGE_SIZE
    numbers = torch.arange(2 * len(module.MEAN) * side * side, dtype=torch.float32)
    x_BCHW = torch.sin(numbers).reshape(2, len(module.MEAN), side, side)
    with torch.no_grad():
        logits_BK = network(module.normalise(x_BCHW))
    what = {
        "constants": constants,
        "weights": dict(network.state_dict()),
        "modules": [name for name, _ in network.named_modules()],
        "logits": logits_BK,
    }
    return b"\n".join(canonical(what))


def timings_content(path: Path) -> bytes:
    """Which times were noted."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # The same for a run that was stopped: it goes on inside the epoch.
    return "\n".join(f"{record.get('epoch')} {sorted(record)}" for record in lines).encode()


def table_content(path: Path) -> bytes:
    """A table of latencies that was measured: what, and not how long it took."""
    table = json.loads(path.read_text())
    for entry in table["entries"].values():
        entry |= {"ms": "#", "spread_ms": "#"}
    table["device"] = table["versions"] = "#"
    return json.dumps(table).encode()


DURATION = re.compile(rb"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?:ms|s|min|h|MiB|GiB|MB|GB)\b")
ENVIRONMENT = re.compile(rb"<h2>Environment</h2>.*?(?=<h2|</main>|</body>)", re.DOTALL)


def report_content(path: Path) -> bytes:
    """A report without its environment, and with # for times, waiting and memory."""
    waiting = re.compile(rb"(less than )?\d+% of the time")
    page = ENVIRONMENT.sub(b"", path.read_bytes())
    return DURATION.sub(b"#", waiting.sub(b"#", page))


TIMED = ("measure.stdout", "estimate.stdout")  # every number in them is a measurement
WARNING = re.compile(r"^\S+:\d+: \w*Warning: |^\[?[WIE]\d{4} |^\S*/site-packages/|\w+Warning: ")


def output_content(path: Path, name: str) -> bytes:
    """What a command said, without warnings of the interpreter, times left, and times taken."""
    lines = []
    skipped = False
    for line in path.read_text().splitlines():
        if WARNING.search(line):
            skipped = True  # the line of source under it, indented, goes with it
            continue
        if skipped and line.startswith("  "):
            continue
        skipped = False
        line = re.sub(r"\d+:\d\d(:\d\d)? left", "# left", line)
        line = re.sub(r"\b\d+(\.\d+)? s;", "# s;", line)
        line = re.sub(r"^waiting for data: .*", "waiting for data: #", line)
        line = re.sub(r"\babout \d+ (s|min|h|days)\b", "about #", line)  # of the next step
        if path.name in TIMED:
            line = re.sub(r"\d+(\.\d+)?", "#", line)
        lines.append(line.rstrip())
    if name.startswith("help-"):
        # Where a sentence of the help breaks follows the lines of our source.
        words = "\n".join(lines).replace("│", " ").replace("─", " ").split()
        return " ".join(words).encode()
    if name.startswith("stopped"):
        # How far a run came before Ctrl-C reached it depends on the moment.
        lines = [line for line in lines if not re.match(r"\w+: epoch", line)]
    return "\n".join(lines).encode()


def content(path: Path, name: str) -> bytes | None:
    """The part of a file that must stay the same; None for a file that is left out."""
    if path.name == "environment.json":
        return None
    if name.startswith("exported-") and path.suffix == ".py":
        return source_content(path)
    if name == "m.json":
        return table_content(path)
    if path.suffix in (".stdout", ".stderr"):
        return output_content(path, name)
    by_name = {"timings.jsonl": timings_content, "report.html": report_content}
    by_suffix: dict[str, Callable[[Path], bytes]] = {
        ".pt": checkpoint_content,
        ".safetensors": safetensors_content,
        ".onnx": onnx_content,
        ".pt2": program_content,
    }
    if name.startswith("stopped") and path.name == "checkpoint.previous.pt":
        return None  # of the moment it was stopped at
    reader = by_name.get(path.name) or by_suffix.get(path.suffix) or Path.read_bytes
    return reader(path)


def hashes(exits: Mapping[str, int]) -> dict[str, Hash]:
    """Name of a file or an exit code -> hash, of all that lies in the current folder.

    Args:
        exits: exit code of each run.
    """
    found = {f"{name}.exit": str(code) for name, code in exits.items()}
    for path in sorted(Path().rglob("*")):
        name = path.as_posix()
        if not path.is_file() or name.startswith(INPUTS):
            continue
        if (data := content(path, name)) is not None:
            found[name] = short(data)
    return found
