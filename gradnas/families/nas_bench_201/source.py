"""Readable source of networks of NAS-Bench-201."""

from __future__ import annotations

from gradnas.architectures.dense_cell import DenseCell
from gradnas.export.source import NetworkSource, assignment, literal, network_code
from gradnas.spaces import NasBench201, NasBench201Network, operations
from gradnas.spaces.nas_bench_201 import network
from gradnas.spaces.operations import OPERATIONS

_COMMENT = """\
# the cell: for every node after its input (node 0) the operations by which it reads nodes 0, 1,
# and so on; node {last} is its output"""

_BUILD = '''

def build() -> nn.Module:
    """The network with fresh weights."""
    return NasBench201Network(
        CELL,
        channels={space.channels},
        cells={space.cells},
        num_classes={num_classes},
        in_channels={in_channels},
    )
'''


def bench_source(
    cell: DenseCell, space: NasBench201, in_channels: int, num_classes: int
) -> NetworkSource:
    """The cell, and the classes and functions of its network, with the operations it uses.

    Raises:
        ValueError: an operation of the user's own, whose source may lie anywhere.
    """
    used = set(cell.operations)
    for name in sorted(used):
        # Also one that has the name of a known operation
        if space.shape.factories.get(name) is not OPERATIONS.get(name):
            raise ValueError(
                f"your own operation {name!r} cannot be written as source; export to .pt2 or .onnx"
            )
    rows = []
    for names in cell.nodes:
        listed = ", ".join(literal(name) for name in names)
        rows.append(f"[{listed}]")
    code, imports = network_code([operations, network], {NasBench201Network.__name__}, used)
    build = _BUILD.format(space=space, in_channels=in_channels, num_classes=num_classes)
    comment = _COMMENT.format(last=len(cell.nodes))
    architecture = f"{comment}\n{assignment('CELL', '[]', rows)}"
    return NetworkSource(architecture, code, imports, build)
