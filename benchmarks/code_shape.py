"""The shape of a package's code in figures: density, sizes, import cycles, questions about kinds.

    python benchmarks/code_shape.py                  the figures of gradnas/
    python benchmarks/code_shape.py gradnas/laws     of one of its folders, or of another package
    python benchmarks/code_shape.py --list           and where each thing that is counted stands
    python benchmarks/code_shape.py --hardest 10     the ten files that are packed most densely
    python benchmarks/code_shape.py --json           the figures alone, for a comparison

The figures say where to look, not whether the code is good: that is for its readers to say.

What is counted, and how, is said in `code_shape_counts.py`, `code_shape_imports.py` and
`code_shape_kinds.py`.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from code_shape_counts import FileShape, count_syntax, count_tokens, docstring_lines
from code_shape_imports import import_cycles, num_layers, top_folder
from code_shape_kinds import KIND_ROOMS, KindQuestions, kind_classes

ROOT = Path(__file__).resolve().parents[1]

LONG_FUNCTION = 80
LONG_FILE = 400
MANY_METHODS = 12
TOO_MANY_METHODS = 15

# The figures whose places are listed.
PACKED = "packed assignments"
NESTED = "nested comprehensions"
LONG_FUNCTIONS = f"functions above {LONG_FUNCTION} lines"
LARGE_CLASSES = f"classes above {MANY_METHODS} methods"
TOO_LARGE_CLASSES = f"classes above {TOO_MANY_METHODS} methods"
LONG_FILES = f"files above {LONG_FILE} lines"
RUN_TIME_CYCLES = "import cycles at run time"
TYPING_CYCLES = "import cycles with typing imports"
QUESTIONS = "questions about kinds"


def read_shape(path: Path, name: str, kinds: set[str]) -> FileShape:
    """Count everything in the file `path`, which is called `name` in the places."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    shape = FileShape(name, num_lines=len(text.splitlines()))
    count_tokens(shape, text, docstring_lines(tree))
    count_syntax(shape, tree)
    rooms = Path(name).parts[:-1]
    if not KIND_ROOMS.intersection(rooms):
        questions = KindQuestions(kinds)
        questions.visit(tree)
        for line, what in questions.found:
            shape.questions.append(f"{name}:{line}: {what}")
    return shape


def places_of(shapes: list[FileShape], folder: Path) -> dict[str, list[str]]:
    """Where the things stand that are counted one by one, by the names of their figures."""
    functions = [function for shape in shapes for function in shape.functions]
    classes = [found for shape in shapes for found in shape.classes]
    files = [(shape.num_lines, shape.name) for shape in shapes]
    places = {
        PACKED: [place for shape in shapes for place in shape.packed],
        NESTED: [place for shape in shapes for place in shape.nested],
        LONG_FUNCTIONS: above(LONG_FUNCTION, functions),
        LARGE_CLASSES: above(MANY_METHODS, classes),
        TOO_LARGE_CLASSES: above(TOO_MANY_METHODS, classes),
        LONG_FILES: above(LONG_FILE, files),
    }
    if (folder / "__init__.py").exists():
        run_time_cycles = import_cycles(folder, typing_imports=False)
        typing_cycles = import_cycles(folder, typing_imports=True)
        places[RUN_TIME_CYCLES] = [", ".join(cycle) for cycle in run_time_cycles]
        places[TYPING_CYCLES] = [", ".join(cycle) for cycle in typing_cycles]
    else:
        print(f"{folder} has no __init__.py: its imports are not looked at", file=sys.stderr)
    places[QUESTIONS] = [place for shape in shapes for place in shape.questions]
    return places


def figures_of(
    shapes: list[FileShape],
    places: dict[str, list[str]],
    folder: Path,
) -> dict[str, float]:
    """The figures by name, in the order in which they are printed."""
    num_code_lines = max(1, sum(shape.num_code_lines for shape in shapes))
    num_tokens = sum(shape.num_tokens for shape in shapes)
    num_comments = sum(shape.num_comments for shape in shapes)
    num_comprehensions = sum(shape.num_comprehensions for shape in shapes)
    per_thousand = 1000 / num_code_lines
    figures: dict[str, float] = {
        "files": len(shapes),
        "lines": sum(shape.num_lines for shape in shapes),
        "code lines": num_code_lines,
        "tokens per code line": num_tokens / num_code_lines,
        PACKED: len(places[PACKED]),
        f"{PACKED} per 1,000 code lines": len(places[PACKED]) * per_thousand,
        "comprehensions per 1,000 code lines": num_comprehensions * per_thousand,
        f"{NESTED} per 1,000 code lines": len(places[NESTED]) * per_thousand,
        "comments per 100 code lines": 100 * num_comments / num_code_lines,
    }

    lengths = sorted(length for shape in shapes for length, _ in shape.functions)
    figures["functions"] = len(lengths)
    if lengths:
        figures["lines of a function, median"] = statistics.median_low(lengths)
        figures["lines of a function, p90"] = lengths[math.ceil(0.9 * len(lengths)) - 1]
        figures["lines of a function, max"] = lengths[-1]
    figures[LONG_FUNCTIONS] = len(places[LONG_FUNCTIONS])

    num_methods = [count for shape in shapes for count, _ in shape.classes]
    figures["methods of a class, max"] = max(num_methods, default=0)
    figures[LARGE_CLASSES] = len(places[LARGE_CLASSES])
    figures[TOO_LARGE_CLASSES] = len(places[TOO_LARGE_CLASSES])
    figures[LONG_FILES] = len(places[LONG_FILES])
    figures["files directly in the folder"] = len(list(folder.glob("*.py")))

    if RUN_TIME_CYCLES in places:
        figures[RUN_TIME_CYCLES] = len(places[RUN_TIME_CYCLES])
        figures[TYPING_CYCLES] = len(places[TYPING_CYCLES])
        figures["layers of the import contract"] = num_layers(folder)
    figures[QUESTIONS] = len(places[QUESTIONS])
    figures["files that ask about kinds"] = sum(bool(shape.questions) for shape in shapes)
    return figures


def above(limit: int, counted: list[tuple[int, str]]) -> list[str]:
    """The places whose count is above `limit`, the largest first, with their counts."""
    return [f"{place} ({count})" for count, place in sorted(counted, reverse=True) if count > limit]


def rows_of(figures: dict[str, float]) -> Iterator[str]:
    """The figures as lines of text."""
    for name, value in figures.items():
        shown = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        yield f"{name:<46}{shown:>10}"


def hardest_rows(shapes: list[FileShape], count: int) -> Iterator[str]:
    """The `count` files of the largest hardness."""
    ranked = sorted(shapes, key=lambda shape: shape.hardness, reverse=True)
    yield f"{'file':<46}{'code lines':>12}{'tokens/line':>13}{'packed':>8}{'comments':>10}"
    for shape in ranked[:count]:
        yield (
            f"{shape.name:<46}{shape.num_code_lines:>12}{shape.tokens_per_line:>13.1f}"
            f"{len(shape.packed):>8}{shape.num_comments:>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "gradnas")
    parser.add_argument("--list", action="store_true", help="where each thing counted stands")
    parser.add_argument("--json", action="store_true", help="the figures as JSON, and nothing else")
    parser.add_argument("--hardest", type=int, default=0, metavar="N", help="the N densest files")
    options = parser.parse_args()
    folder = options.folder.resolve()
    paths = sorted(folder.rglob("*.py"))
    if not paths:
        parser.error(f"{options.folder} holds no Python files: name the folder of a package")

    # The classes of kinds are those of the whole package, also for the shape of one of its folders.
    all_paths = top_folder(folder).rglob("*.py")
    kinds = kind_classes([ast.parse(path.read_text(encoding="utf-8")) for path in all_paths])
    shapes = []
    for path in paths:
        shapes.append(read_shape(path, path.relative_to(folder.parent).as_posix(), kinds))
    places = places_of(shapes, folder)
    figures = figures_of(shapes, places, folder)

    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print("\n".join(rows_of(figures)))
    if options.hardest:
        print()
        print("\n".join(hardest_rows(shapes, options.hardest)))
    if options.list:
        for name, found in places.items():
            print(f"\n{name}: {len(found)}")
            for place in found:
                print(f"  {place}")


if __name__ == "__main__":
    main()
