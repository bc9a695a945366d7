"""Pictures of cells: nothing overlaps, nothing is missing, and the same genotype gives the same
bytes."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from gradnas.architectures.genotype import Genotype
from gradnas.pictures import cells
from gradnas.pictures.canvas import PNG_DPI

PUBLISHED = Genotype.names()
CONV_OPERATIONS = [
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
    "my_own_operation_with_a_long_name",
]


def cell_figure(name, cell):
    """A picture of one cell alone."""
    return cells.figure_of([(name, cell)], None)


def drawn_cells(draw, least=4):
    num_nodes = draw(st.integers(least, 7))
    names = st.sampled_from(CONV_OPERATIONS[: draw(st.sampled_from([8, 9]))])
    edges = [(draw(names), draw(st.integers(0, i + 1))) for i in range(num_nodes) for _ in range(2)]
    return edges, draw(st.lists(st.integers(2, num_nodes + 1), min_size=1, unique=True))


@st.composite
def conv_genotypes(draw):
    (normal, normal_concat), (reduce, reduce_concat) = drawn_cells(draw), drawn_cells(draw, least=1)
    return Genotype.conv(normal, reduce, normal_concat, reduce_concat)


@st.composite
def recurrent_genotypes(draw):
    names = st.sampled_from(["tanh", "relu", "sigmoid", "identity"])
    edges = [(draw(names), draw(st.integers(0, i))) for i in range(draw(st.integers(1, 12)))]
    return Genotype.recurrent_cell(
        edges, draw(st.lists(st.integers(1, len(edges)), min_size=1, unique=True))
    )


# -- geometry

POINT = PNG_DPI / 72  # pixels
BORDER = 1.0 * POINT


def texts_and_boxes(figure):
    """Extents of the texts, and of the rounded boxes with their borders. All lengths here are
    pixels of a PNG."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()
    texts = {
        text: text.get_window_extent(renderer) for text in figure.findobj(Text) if text.get_text()
    }
    boxes = [
        box.get_window_extent(renderer).padded(BORDER / 2) for box in figure.findobj(FancyBboxPatch)
    ]
    return texts, boxes


def lines(figure):
    """Corners of every painted line, with its colour, its width in points and its layer."""
    for patch in figure.findobj(PathPatch):
        path = (
            patch.get_transform()
            .transform_path(patch.get_path())
            .cleaned(curves=False, simplify=False)
        )
        points = path.vertices[path.codes != path.STOP]
        yield points, patch.get_edgecolor(), patch.get_linewidth(), patch.get_zorder()


def overlap(first, second):
    shared = Bbox.intersection(first, second)
    return shared is not None and shared.width > 0 and shared.height > 0


def enters(points, boxes):
    """Whether a line runs inside a box. Its pieces are horizontal, vertical, or a short part of a
    rounded corner, so their extents may stand for them."""
    low = np.minimum(points[:-1], points[1:])[:, None]
    high = np.maximum(points[:-1], points[1:])[:, None]
    corners = np.array([[box.min, box.max] for box in boxes])
    return bool(((high > corners[:, 0]) & (low < corners[:, 1])).all(axis=-1).any())


def check_geometry(figure: Figure) -> None:
    texts, boxes = texts_and_boxes(figure)
    for (one, first), (other, second) in itertools.combinations(texts.items(), 2):
        assert not overlap(first, second), f"{one.get_text()!r} overlaps {other.get_text()!r}"
    for first, second in itertools.combinations(boxes, 2):
        assert not overlap(first, second)
    for text, extent in texts.items():
        around = [box for box in boxes if overlap(box, extent)]
        assert len(around) <= 1
        for box in around:
            assert box.x0 < extent.x0 and extent.x1 < box.x1, (
                f"{text.get_text()!r} is wider than its box"
            )
            assert box.y0 < extent.y0 and extent.y1 < box.y1, (
                f"{text.get_text()!r} is higher than its box"
            )
    page = figure.bbox
    for extent in (*texts.values(), *boxes):
        assert (
            page.x0 < extent.x0
            and extent.x1 < page.x1
            and page.y0 < extent.y0
            and extent.y1 < page.y1
        )

    inner = [box.padded(-1.5 * BORDER) for box in boxes]  # lines end at the borders
    free = [extent for extent in texts.values() if not any(overlap(box, extent) for box in boxes)]
    painted = [line for line in lines(figure) if line[1] != (1.0, 1.0, 1.0, 1.0)]
    for points, *_ in painted:
        assert not enters(points, [*inner, *free])
    check_no_line_upon_line([points for points, *_ in painted])


def check_no_line_upon_line(painted):
    """No two lines share a stretch: each could be taken for the other. (A line to the output may
    begin under the line of the same state to its lane.)"""
    for axis in (0, 1):
        stretches = {}
        for points in painted:
            for start, stop in itertools.pairwise(points):
                if abs(start[axis] - stop[axis]) < 1e-6:
                    key = round(float(start[axis]), 3)
                    stretches.setdefault(key, []).append(
                        sorted((float(start[1 - axis]), float(stop[1 - axis])))
                    )
        for own in stretches.values():
            for (a, b), (c, d) in itertools.combinations(own, 2):
                shared = min(b, d) - max(a, c)
                assert shared < 1e-3 or abs(a - c) < 1e-3


def readable_texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_cells_are_clean(name):
    check_geometry(cells.figure(Genotype.named(name), title=name))


@pytest.mark.parametrize("name", ["DARTS_V2", "DARTS_V1_recurrent"])  # the narrowest and the widest
def test_long_titles_are_broken(name):
    check_geometry(
        cells.figure(Genotype.named(name), title="runs/a rather long name of a folder/" * 5)
    )


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(conv_genotypes())
def test_random_conv_cells_are_clean(genotype):
    check_geometry(cells.figure(genotype))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(recurrent_genotypes())
def test_random_recurrent_cells_are_clean(genotype):
    check_geometry(cells.figure(genotype))


def test_the_check_sees_collisions():
    """The oracle above is not vacuous: a moved text, box and line are found."""
    genotype = Genotype.named("DARTS")
    for kind in (Text, FancyBboxPatch):
        figure = cells.figure(genotype)
        first, second = [
            item for item in figure.findobj(kind) if getattr(item, "get_text", lambda: "x")()
        ][:2]
        if isinstance(first, Text):
            first.set_position(second.get_position())
        else:
            first.set_x(second.get_x() + 3), first.set_y(second.get_y())
        with pytest.raises(AssertionError):
            check_geometry(figure)
    figure = cells.figure(genotype)
    box = figure.findobj(FancyBboxPatch)[3]
    figure.axes[0].add_patch(
        PathPatch(matplotlib.path.Path([(0, box.get_y() + 3), (300, box.get_y() + 3)]))
    )
    with pytest.raises(AssertionError):
        check_geometry(figure)


# -- contents


def read_back(figure):
    """The edges (operation, source, target) of a picture of one cell, found by following its lines
    by eye, so to say: two lines are one wire where the end of one lies upon the other; a mere
    crossing joins nothing."""
    texts, boxes = texts_and_boxes(figure)
    names = {}
    for box in boxes:
        inside = sorted(
            (text for text, own in texts.items() if overlap(own, box)),
            key=lambda text: -texts[text].y0,
        )
        names[box] = " ".join(text.get_text() for text in inside)
    painted = [
        points
        for points, colour, width, _ in lines(figure)
        if width > 1.0 and colour[:3] != (1.0, 1.0, 1.0)
    ]
    wires = nx.Graph()
    wires.add_nodes_from(range(len(painted)))
    for i, j in itertools.permutations(range(len(painted)), 2):
        if any(distance(end, painted[j]) < 0.3 * POINT for end in (painted[i][0], painted[i][-1])):
            wires.add_edge(i, j)
    entering = {}
    for wire in nx.connected_components(wires):
        ends = [end for i in wire for end in (painted[i][0], painted[i][-1])]
        starts = [box for box in boxes if any(at(end, box.x1, box) for end in ends)]
        stops = [box for box in boxes if any(at(end, box.x0, box) for end in ends)]
        assert len(starts) == 1 and stops, "a wire has one source"
        for stop in stops:
            entering.setdefault(stop, []).append(starts[0])
    operations = [box for box in entering if names[box][0] not in "$0123456789"]
    edges = []
    for box in operations:
        (source,) = entering[box]
        (target,) = [other for other in boxes if box in entering.get(other, [])]
        edges.append((names[box], names[source], names[target]))
    return sorted(edges)


def distance(point, line):
    """Of a point from a broken line."""
    start, step = line[:-1], np.diff(line, axis=0)
    along = ((point - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-12)
    return np.linalg.norm(start + along.clip(0, 1)[:, None] * step - point, axis=1).min()


def at(end, x, box):
    return abs(end[0] - x) < BORDER and box.y0 < end[1] < box.y1


def expected_edges(name, genotype):
    def readable(operation):
        return (
            "skip"
            if operation == "skip_connect"
            else re.sub(r"(\d)x(\d)", r"\1×\2", operation.replace("_", " "))
        )

    if name == "recurrent":
        edges = [
            (op, f"$s_{{{i}}}$", f"$s_{{{k + 1}}}$") for k, (op, i) in enumerate(genotype.recurrent)
        ]
        return sorted(edges)
    label = ["$c_{k-2}$", "$c_{k-1}$", *map(str, range(9))]
    edges = enumerate(genotype.cell(name).edges)
    return sorted((readable(op), label[i], label[k // 2 + 2]) for k, (op, i) in edges)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_pictures_say_what_the_genotype_says(name):
    genotype = Genotype.named(name)
    for cell, value in genotype.cells:
        assert read_back(cell_figure(cell, value)) == expected_edges(cell, genotype)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.one_of(conv_genotypes(), recurrent_genotypes()))
def test_random_pictures_say_what_the_genotype_says(genotype):
    for cell, value in genotype.cells:
        assert read_back(cell_figure(cell, value)) == expected_edges(cell, genotype)


def test_every_part_of_a_conv_cell_is_drawn():
    genotype = Genotype.named("AmoebaNet")
    found = readable_texts(cell_figure("reduce", genotype.cell("reduce")))
    operations = ["avg pool 3×3", "sep conv 3×3", "max pool 3×3", "sep conv 7×7", "conv 7×1 1×7"]
    assert {name: found.count(name) for name in operations} == dict(
        zip(operations, [2, 2, 3, 2, 1], strict=True)
    )
    assert {"Reduction cell", "$c_{k-2}$", "$c_{k-1}$", "$c_{k}$", "concat", *"01234"} <= set(found)
    assert {"convolution", "pooling"} <= set(found) and "skip connection" not in found  # the legend
    both = readable_texts(cells.figure(genotype, title="AmoebaNet-A"))
    assert {"AmoebaNet-A", "Normal cell", "Reduction cell", "skip"} <= set(both)
    assert both.count("$c_{k}$") == 2


def test_every_part_of_a_recurrent_cell_is_drawn():
    found = readable_texts(cells.figure(Genotype.named("ENAS")))
    assert (found.count("tanh"), found.count("relu")) == (4, 7)
    assert {"$x_{t}$", "$h_{t-1}$", "$h_{t}$", "mean", *(f"$s_{{{i}}}$" for i in range(12))} <= set(
        found
    )


@pytest.mark.parametrize("name", ["NASNet", "AmoebaNet", "DARTS_V2", "ENAS"])
def test_one_line_leads_to_the_output_per_concat_node(name):
    genotype = Genotype.named(name)
    thin = [line for line in lines(cells.figure(genotype)) if line[2] < 1.0]
    assert len(thin) == sum(len(cell.concat) for _, cell in genotype.cells)


@pytest.mark.parametrize("name", PUBLISHED)
def test_text_is_legible_on_a_page_of_900_pixels(name):
    figure = cells.figure(Genotype.named(name))
    scale = min(1.0, 900 / (figure.get_figwidth() * 96))
    smallest = (
        min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) * 96 / 72
    )
    assert smallest * scale > 9.0


def test_names_of_operations_are_plain_text():
    """Dollars, angle brackets and line breaks in a name are neither mathematics nor mark-up."""
    names = ["$x^2$", "a$b", "<b>&\n", "--> <!-- *{", "\t", "\\frac", "a" * 70]
    edges = [(name, i % 2) for i, name in enumerate([*names, "none"])]
    genotype = Genotype.conv(edges, edges)
    check_geometry(cells.figure(genotype))
    ET.fromstring(cells.svg(genotype, title="<script>$alert$</script> & --> *{"))


# -- files


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["svg", "png", "pdf", "SVG"])
@pytest.mark.parametrize("name", ["DARTS_V2", "DARTS_V2_recurrent"])
def test_the_same_bytes_whatever_the_settings(name, suffix, tmp_path):
    first = cells.picture(Genotype.named(name), tmp_path / f"a.{suffix}", title=name)
    user = {
        "savefig.bbox": "tight",
        "font.size": 30,
        "patch.linewidth": 4,
        "svg.fonttype": "none",
        "savefig.dpi": 50,
    }
    with matplotlib.rc_context(user):
        second = cells.picture(Genotype.named(name), str(tmp_path / f"b.{suffix}"), title=name)
        assert matplotlib.rcParams["font.size"] == 30  # and the settings are as they were
    assert first.read_bytes() == second.read_bytes()
    assert sorted(os.listdir(tmp_path)) == [f"a.{suffix}", f"b.{suffix}"]
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix.lower()]
    assert first.read_bytes().startswith(start)


@pytest.mark.slow
def test_the_same_bytes_in_another_process():
    code = (
        "import hashlib; from gradnas.pictures import cells; "
        "from gradnas.architectures.genotype import Genotype; "
        "print(hashlib.sha256(cells.svg(Genotype.named('AmoebaNet')).encode()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "17"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert (
        done.stdout.strip()
        == hashlib.sha256(cells.svg(Genotype.named("AmoebaNet")).encode()).hexdigest()
    )


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("cells.jpg", "a picture ends in .svg, .png, .pdf, not '.jpg'"),
        ("cells.sgv", "not '.sgv' (did you mean 'svg'?)"),
        ("cells", "a picture ends in .svg, .png, .pdf, not ''"),
    ],
)
def test_unknown_suffix(file, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        cells.picture(Genotype.named("DARTS"), tmp_path / file)
    assert os.listdir(tmp_path) == []


def test_unwritable_file(tmp_path):
    with pytest.raises(ValueError, match=r"none/cells\.svg"):
        cells.picture(Genotype.named("DARTS"), tmp_path / "none" / "cells.svg")


def test_svgs_can_share_a_page():
    names = ["DARTS_V1", "DARTS_V2", "ENAS"]
    pictures = [cells.svg(Genotype.named(name), title=name) for name in names]
    ids = [set(re.findall(r'\bid="([^"]*)"', picture)) for picture in pictures]
    for first, second in itertools.combinations(ids, 2):
        assert not first & second
    for picture, own in zip(pictures, ids, strict=True):
        root = ET.fromstring(picture)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', picture)) <= own
        assert picture.startswith("<svg ") and picture.endswith("</svg>\n")
        assert "<metadata" not in picture and "<!DOCTYPE" not in picture
        style = root.find(".//{http://www.w3.org/2000/svg}style")
        assert (
            style is not None
            and style.text is not None
            and style.text.startswith(f"#{root.get('id')} *")
        )
        assert root.get("width") is None and "max-width" in root.get("style", "")
        assert root.get("aria-label")
