"""Readable source of networks of convolutional cells."""

from __future__ import annotations

from gradnas.architectures.genotype import Genotype
from gradnas.export.source import NetworkSource, assignment, literal, network_code
from gradnas.spaces import ConvCell, ConvNetwork, operations
from gradnas.spaces.cells import conv_network
from gradnas.spaces.operations import OPERATIONS

_COMMENT = """\
# the cells: (operation, predecessor), two for each node from node 2 on; nodes 0 and 1 are the
# outputs of the two cells before; the nodes of a concat are the output"""

_BUILD = '''

def build() -> nn.Module:
    """The network with fresh weights."""
    return ConvNetwork(
        NORMAL,
        NORMAL_CONCAT,
        REDUCE,
        REDUCE_CONCAT,
        channels={space.channels},
        cells={space.cells},
        num_classes={num_classes},
        in_channels={in_channels},
        stem="{space.stem}",
    )
'''


def cells_source(
    genotype: Genotype, space: ConvCell, in_channels: int, num_classes: int
) -> NetworkSource:
    """The cells, and the classes and functions of their network, with the operations it uses.

    Raises:
        ValueError: an operation of the user's own, whose source may lie anywhere.
    """
    used = {name for name, _ in (*genotype.normal, *genotype.reduce)}
    for name in sorted(used):
        known = OPERATIONS.get(name)
        # Also one that has the name of a known operation
        if space.shape.factories.get(name, known) is not known:
            raise ValueError(
                f"your own operation {name!r} cannot be written as source; export to .pt2 or .onnx"
            )
    is_listed = any(cell.inputs_per_node is not None for _, cell in genotype.cells)
    comment: str = _COMMENT
    if is_listed:
        comment = comment.replace("two for each", "two or a list for each")
    lines = [comment]
    for name, cell in genotype.cells:
        edges = [f"({literal(operation)}, {node})" for operation, node in cell.edges]
        if cell.inputs_per_node is not None:
            edges = []
            for node_edges in genotype.inputs(name):
                pairs = [f"({literal(operation)}, {node})" for operation, node in node_edges]
                edges.append(f"[{', '.join(pairs)}]")
        lines.append(assignment(name.upper(), "[]", edges))
        lines.append(assignment(f"{name.upper()}_CONCAT", "[]", map(str, cell.concat)))
    code, imports = network_code([operations, conv_network], {ConvNetwork.__name__}, used)
    build = _BUILD.format(space=space, in_channels=in_channels, num_classes=num_classes)
    return NetworkSource("\n".join(lines), code, imports, build)
