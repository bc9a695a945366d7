"""Writes the tables of docs/methods.md: every method, and what it runs with.

    python docs/methods.py            try every combination (some minutes), and write both tables
    python docs/methods.py --only A   try method A (as in tests/cases.py) alone, and keep the rest
    python docs/methods.py --check    exit 1 where the list of methods is not that of the code

The combinations are those of tests/matrix.py, which takes them from tests/cases.py; each makes two
steps of a tiny search, or is refused by a sentence. tests/test_matrix.py tries a part of them
against the page.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
LIST = ("<!-- the list of methods: written by docs/methods.py -->", "<!-- end of the list -->")
MATRIX = ("<!-- the combinations: written by docs/methods.py -->", "<!-- end of the table -->")

ROOMS = ("relaxations", "gradients", "objectives", "stabilizers", "selections")
# How gradients are called in the cells of the table.
SHORT = {
    "first order": "F",
    "finite difference": "D",
    "unrolled, exact": "E",
    "unrolled, two steps": "E2",
    "implicit, Neumann": "N",
    "implicit, conjugate gradients": "C",
    "rewards": "R",
}

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

Outcomes = Mapping[tuple[str, str, str], str]  # method, where, gradient -> `RUNS`, or a sentence


# ---- the list of methods -------------------------------------------------------------------------


def methods() -> list[tuple[str, str, str]]:
    """Room, class and what it is, of every method."""
    import importlib

    import gradnas
    from gradnas.objectives import AlphaTerm

    found = []
    for room in ROOMS:
        module = importlib.import_module(f"gradnas.{room}")
        for name in sorted(vars(module)):
            cls = getattr(module, name)
            is_public = inspect.isclass(cls) and hasattr(gradnas, name)
            if not is_public or inspect.isabstract(cls) or name in ("Stabilizer", "Selection"):
                continue
            if room == "objectives" and not issubclass(cls, AlphaTerm):
                continue
            if not hasattr(cls, "__dataclass_fields__") or name == "SGDStep":
                continue
            path = Path(inspect.getfile(cls))
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found.append((room, name, " ".join(about.split("\n\n")[0].split())))
    return found


def list_of_methods() -> str:
    """The table of all methods."""
    lines = ["| room | method | what it is |", "|---|---|---|"]
    lines += [f"| `{room}/` | `{name}` | {about} |" for room, name, about in methods()]
    return "\n".join(lines)


# ---- what runs with what -------------------------------------------------------------------------


def outcomes(page: str, only: str | None = None) -> Outcomes:
    """Of every combination; what is not tried again is what the page says of it.

    Args:
        only: the method that is tried; None: all of them.
    """
    import matrix

    if only is not None and only not in matrix.METHODS:
        raise SystemExit(f"no method is called {only!r}; there are {', '.join(matrix.METHODS)}")
    found = {}
    for method in matrix.METHODS:
        if only not in (None, method):
            for where in matrix.WHERE:
                for gradient in matrix.ALL_GRADIENTS:
                    said = says(page, method, where, gradient)
                    found[method, where, gradient] = matrix.RUNS if said is None else said
            continue
        for where in matrix.WHERE:
            for gradient in matrix.ALL_GRADIENTS:
                found[method, where, gradient] = matrix.outcome(method, where, gradient)
        print(f"docs/methods.py: {method}", file=sys.stderr)
    return found


def table(found: Outcomes) -> str:
    """Methods by what is searched; below, the sentences."""
    import matrix

    sentences: list[str] = []

    def cell(method: str, where: str) -> str:
        runs = []
        refused: dict[int, list[str]] = {}
        for gradient in matrix.ALL_GRADIENTS:
            what = found[method, where, gradient]
            if what == matrix.RUNS:
                runs.append(SHORT[gradient])
                continue
            if what not in sentences:
                sentences.append(what)
            refused.setdefault(sentences.index(what) + 1, []).append(SHORT[gradient])
        parts = ["all"] if not refused else ([" ".join(runs)] if runs else [])
        for number, short in refused.items():
            own = "" if len(short) == len(matrix.ALL_GRADIENTS) else f"{' '.join(short)} "
            parts.append(f"~~{own.strip()}~~ [{number}]" if own else f"– [{number}]")
        return ", ".join(parts)

    lines = ["| | " + " | ".join(matrix.WHERE) + " |", "|---" * (len(matrix.WHERE) + 1) + "|"]
    for method in matrix.METHODS:
        lines.append(f"| {method} | " + " | ".join(cell(method, w) for w in matrix.WHERE) + " |")
    lines.append("")
    lines += [f"{number}. {text}" for number, text in enumerate(sentences, start=1)]
    return "\n".join(lines)


def read(page: str) -> dict[tuple[str, str], str]:
    """(method, where) -> the cell that the page has."""
    rows = _between(page, MATRIX).strip().splitlines()
    head = [part.strip() for part in rows[0].strip("|").split("|")]
    cells = {}
    for row in rows[2:]:
        if not row.startswith("|"):
            break
        method, *own = [part.strip() for part in row.strip("|").split("|")]
        for where, text in zip(head[1:], own, strict=True):
            cells[method, where] = text
    return cells


def says(page: str, method: str, where: str, gradient: str) -> str | None:
    """What the page says of a combination: the sentence of the refusal, or None where it runs."""
    text = read(page)[method, where]
    for part in text.split(", "):
        number = part.rpartition("[")[2].rstrip("]")
        if not part.endswith("]"):
            continue
        short = part.partition("[")[0].strip().strip("~").split()
        if short == ["–"] or SHORT[gradient] in short:
            rows = _between(page, MATRIX).splitlines()
            return next(r for r in rows if r.startswith(f"{number}. ")).partition(". ")[2]
    return None


def _between(page: str, marks: tuple[str, str]) -> str:
    return page.partition(marks[0])[2].partition(marks[1])[0]


def _put(page: str, marks: tuple[str, str], text: str) -> str:
    before, begin, rest = page.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise ValueError(f"{PAGE} has lost the comment {marks[0]!r} or {marks[1]!r}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    listed = _put(page, LIST, list_of_methods())
    if "--check" in sys.argv:
        if listed != page:
            print(PAGE.relative_to(ROOT))
        return int(listed != page)
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    PAGE.write_text(_put(listed, MATRIX, table(outcomes(page, only))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
