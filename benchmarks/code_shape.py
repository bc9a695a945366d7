"""The shape of a package's code in figures: density, sizes, import cycles, questions about kinds.

    python benchmarks/code_shape.py                  the figures of gradnas/
    python benchmarks/code_shape.py gradnas/laws     of one of its folders, or of another package
    python benchmarks/code_shape.py --list           and where each thing that is counted stands
    python benchmarks/code_shape.py --hardest 10     the ten files that are packed most densely
    python benchmarks/code_shape.py --json           the figures alone, for a comparison

The figures say where to look, not whether the code is good: that is for its readers to say.

What is counted:

- Code line: a physical line with at least one token of code. Comments, blank lines and docstrings
  are none; a text over three lines that is no docstring is three.
- Token: as the module `tokenize` cuts, without comments, docstrings, line ends and indentation.
  From Python 3.12 on it cuts an f-string into its parts: compare figures of one version.
- Packed assignment: `a, b = x, y`, two or more targets beside as many values, none of them
  starred. An exchange (`a, b = b, a`) is none, since it cannot be said otherwise; nor is
  `a, b = pair`, which names the parts of one value.
- Comprehension: of a list, a set, a dictionary, or a generator expression. Nested: another one is
  within it.
- Comment: a line with a comment, unless it speaks to a tool (`type: ignore`, `noqa`, ...).
- Function: from `def` to its last line with all that is in it; methods, and functions within
  functions, count too.
- Methods of a class: the different names that a `def` in its body defines.
- Import cycle: a strongly connected component of two or more modules. Imports are taken as
  written, those within functions too. `from package import name` imports `package/__init__.py`,
  and what that file re-exports, it imports like any other module; that Python runs
  `package/__init__.py` before `package.module` adds no import. At run time: without what stands
  under `if TYPE_CHECKING`.
- Layers: of the longest contract of type `layers` in pyproject.toml; siblings joined by `|` are
  one layer.
- Question about a kind: which kind of architecture, space, network, data or run is this? Asked
  outside of `spaces/`, `families/` and `tasks/`, by
    - `isinstance` or a `case` with a class of `kind_classes`, or a table with such classes as keys;
    - a comparison with such a class, with its name, or with one of KIND_WORDS, or of
      `type(x).__name__` with anything; it is one question, however many classes are in it;
    - the class's name as text: several in one line are one question, and a plain word like
      "Chain", which may be a heading, counts in a comparison alone;
    - a use of a name like `is_text`, or the comparison of one like `chain_space` with None.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import re
import statistics
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grimp
import networkx

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

# Classes that stand for one kind among several. A new one with no base of KIND_BASES is added here.
KIND_CLASSES = {
    # architectures, and their files
    "Genotype",
    "Chain",
    # settings and state of the programs, one class for each kind of data
    "SearchConfig",
    "SearchRun",
    "TextSearchConfig",
    "TextSearchRun",
    "TrainConfig",
    "Training",
    "TextTrainConfig",
    "TextTraining",
    "DiscoverConfig",
    # data
    "Corpus",
    "DataConfig",
    "ImageData",
    "TextConfig",
    # networks
    "ChainNetwork",
    "ConvNetwork",
    "LanguageModel",
    "RecurrentNetwork",
    # estimators of equations
    "EquationClassifier",
    "EquationRegressor",
}

# Whatever is below one of these classes is a kind too; the class itself is what its kinds share.
KIND_BASES = {"Architecture", "Family", "Space", "Supernet", "Task"}

KIND_WORDS = {"conv", "recurrent", "cells", "chains"}
KIND_FLAG = re.compile(r"_?(is|has)_(text|language|images?|chain|cells?|conv|recurrent|graph)")
KIND_SPACE = re.compile(r"(text|image|chain|cell|conv|recurrent)_(space|network|genotype|task)")
CAMEL_CASE = re.compile(r"[A-Z].*[a-z].*[A-Z].*")
IMPORT_PATH = re.compile(r"\w+(\.\w+)+")
KIND_ROOMS = {"spaces", "families", "tasks"}

TO_A_TOOL = re.compile(r"#\s*(type: *ignore|noqa|pyrefly:|mypy:|pyright:|ruff:|fmt:|pragma:|!)")
LAYOUT = {
    tokenize.ENCODING,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class FileShape:
    """What was counted in one file. Places are texts `file:line: what`."""

    name: str
    num_lines: int = 0
    num_code_lines: int = 0
    num_tokens: int = 0
    num_comments: int = 0
    num_comprehensions: int = 0
    packed: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    functions: list[tuple[int, str]] = field(default_factory=list)
    """Lines of each function, and its place."""
    classes: list[tuple[int, str]] = field(default_factory=list)
    """Methods of each class, and its place."""

    @property
    def tokens_per_line(self) -> float:
        """Tokens on a code line."""
        return self.num_tokens / max(1, self.num_code_lines)

    @property
    def hardness(self) -> float:
        """Tokens on a code line, plus packed assignments per 100 code lines: good for a rank."""
        return self.tokens_per_line + 100 * len(self.packed) / max(1, self.num_code_lines)


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


# Lines and tokens


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of texts that stand alone as a statement: docstrings, also those of fields."""
    lines = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def count_tokens(shape: FileShape, text: str, docstrings: set[int]) -> None:
    """Count the code lines, tokens and comments of `text`."""
    code_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first_line = token.start[0]
        last_line = token.end[0]
        if token.type == tokenize.COMMENT:
            if not TO_A_TOOL.match(token.string):
                shape.num_comments += 1
        elif token.type not in LAYOUT and first_line not in docstrings:
            shape.num_tokens += 1
            code_lines.update(range(first_line, last_line + 1))
    shape.num_code_lines = len(code_lines)


# Assignments, comprehensions, functions and classes


def count_syntax(shape: FileShape, tree: ast.AST) -> None:
    """Count what the syntax tree shows."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node, ast.Assign) and is_packed(node):
            shape.packed.append(f"{shape.name}:{node.lineno}: {short(node)}")
        elif isinstance(node, COMPREHENSIONS):
            shape.num_comprehensions += 1
            inner = [part for part in ast.walk(node) if isinstance(part, COMPREHENSIONS)]
            if len(inner) > 1:  # the first is the node itself
                shape.nested.append(f"{shape.name}:{node.lineno}: {short(node)}")
        elif isinstance(node, FUNCTIONS):
            assert node.end_lineno is not None
            num_lines = node.end_lineno - node.lineno + 1
            shape.functions.append((num_lines, f"{shape.name}:{node.lineno}: {node.name}"))
        elif isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, FUNCTIONS)}
            shape.classes.append((len(methods), f"{shape.name}:{node.lineno}: {node.name}"))


def is_packed(node: ast.Assign) -> bool:
    """Whether this assigns two or more values to as many targets, and is no exchange."""
    values = node.value
    if not isinstance(values, ast.Tuple):
        return False
    for targets in node.targets:
        if not isinstance(targets, ast.Tuple) or len(targets.elts) < 2:
            continue
        if any(isinstance(part, ast.Starred) for part in (*targets.elts, *values.elts)):
            continue
        target_texts = sorted(ast.unparse(target) for target in targets.elts)
        value_texts = sorted(ast.unparse(value) for value in values.elts)
        if len(target_texts) == len(value_texts) and target_texts != value_texts:
            return True
    return False


def short(node: ast.AST) -> str:
    """The source of `node`, cut to a line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."


# Questions about kinds


def kind_classes(trees: list[ast.AST]) -> set[str]:
    """KIND_CLASSES, and every class that has one of KIND_BASES above it."""
    bases = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {last_name(base) for base in node.bases}
    kinds = set(KIND_CLASSES)
    below = set(KIND_BASES)
    while True:
        further = {name for name, above in bases.items() if above & below} - below
        if not further:
            return kinds
        below |= further
        kinds |= further


def last_name(node: ast.expr) -> str:
    """`Space` of `Space`, `base.Space` and `Space[Genotype]`; nothing of other expressions."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class KindQuestions(ast.NodeVisitor):
    """Finds the questions about kinds in one file, as pairs of a line and the question's source."""

    def __init__(self, kinds: set[str]) -> None:
        self.kinds = kinds
        self.found: list[tuple[int, str]] = []

        self.lines_of_texts: set[int] = set()

    def note(self, node: ast.expr | ast.pattern) -> None:
        """Keep this question."""
        self.found.append((node.lineno, short(node)))

    def visit_Call(self, node: ast.Call) -> None:
        if is_class_test(node) and any(self.is_kind(part) for part in ast.walk(node.args[1])):
            self.note(node)
            self.visit(node.args[0])
        else:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        # What `isinstance` asks is a question of its own: there are two in
        # `isinstance(a, Chain) != isinstance(b, Chain)`, and the comparison adds none.
        inner_tests = [part for part in ast.walk(node) if is_class_test(part)]
        within_tests = {id(part) for test in inner_tests for part in ast.walk(test)}
        asks = compares_words(node)
        for part in ast.walk(node):
            if id(part) in within_tests:
                continue
            if self.is_kind(part) or is_type_name(part):
                asks = True
        if not asks:
            self.generic_visit(node)
            return
        self.note(node)
        for test in inner_tests:
            self.visit(test)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        if self.is_kind(node.cls):
            self.note(node)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        asks = False
        for key, value in zip(node.keys, node.values, strict=True):
            if key is not None and not self.is_kind(key):
                self.visit(key)
            elif key is not None and not is_import_path(value):
                # A table that says where a name is imported from would ask nothing.
                asks = True
            self.visit(value)
        if asks:
            self.note(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        is_name = self.is_kind(node) and CAMEL_CASE.fullmatch(str(node.value))
        if is_name and node.lineno not in self.lines_of_texts:
            self.lines_of_texts.add(node.lineno)
            self.note(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        is_flag = KIND_FLAG.fullmatch(node.attr) and isinstance(node.ctx, ast.Load)
        if is_flag or self.is_kind_name(node):
            self.note(node)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if KIND_FLAG.fullmatch(node.id) and isinstance(node.ctx, ast.Load):
            self.note(node)

    # Annotations and `__all__` name classes without asking anything.

    def visit_arg(self, node: ast.arg) -> None:
        pass

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        node.returns = None
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if ast.unparse(node.targets[0]) != "__all__":
            self.generic_visit(node)

    def is_kind(self, node: ast.AST) -> bool:
        """Whether this is a class of a kind, or its name as text."""
        if isinstance(node, ast.Name):
            return node.id in self.kinds
        if isinstance(node, ast.Attribute):
            return node.attr in self.kinds or self.is_kind_name(node)
        return isinstance(node, ast.Constant) and node.value in self.kinds

    def is_kind_name(self, node: ast.Attribute) -> bool:
        """Whether this is `Chain.__name__` or the like."""
        return node.attr == "__name__" and self.is_kind(node.value)


def compares_words(node: ast.Compare) -> bool:
    """Whether something is compared with a kind's word, or a name like `chain_space` with None."""
    operands = [node.left, *node.comparators]
    parts = []
    for operand in operands:
        is_collection = isinstance(operand, ast.Tuple | ast.List | ast.Set)
        parts.extend(operand.elts if is_collection else [operand])
    constants = [part.value for part in parts if isinstance(part, ast.Constant)]
    names = [last_name(part) for part in parts]
    is_one_space = any(KIND_SPACE.fullmatch(name) for name in names)
    return bool(KIND_WORDS.intersection(constants)) or (is_one_space and None in constants)


def is_import_path(node: ast.expr) -> bool:
    """Whether this is a text like "package.module"."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return IMPORT_PATH.fullmatch(node.value) is not None


def is_class_test(node: ast.AST) -> bool:
    """Whether this is a call of `isinstance` or `issubclass` with two arguments."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id in ("isinstance", "issubclass") and len(node.args) == 2


def is_type_name(node: ast.AST) -> bool:
    """Whether this is `type(x).__name__`."""
    if not isinstance(node, ast.Attribute) or node.attr != "__name__":
        return False
    called = node.value
    return isinstance(called, ast.Call) and last_name(called.func) == "type"


# Imports


def import_cycles(folder: Path, typing_imports: bool) -> list[list[str]]:
    """The modules of each import cycle within `folder`, which belongs to a package."""
    top = top_folder(folder)
    sys.path.insert(0, str(top.parent))
    graph = grimp.build_graph(
        top.name,
        exclude_type_checking_imports=not typing_imports,
        cache_dir=None,
    )
    sys.path.pop(0)
    inside = ".".join(folder.relative_to(top.parent).parts)
    modules = [m for m in graph.modules if m == inside or m.startswith(inside + ".")]
    imports = networkx.DiGraph()
    imports.add_nodes_from(modules)
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if imported in imports:
                imports.add_edge(module, imported)
    components = networkx.strongly_connected_components(imports)
    return sorted(sorted(component) for component in components if len(component) > 1)


def top_folder(folder: Path) -> Path:
    """The topmost package that `folder` is in."""
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


def num_layers(folder: Path) -> int:
    """Layers of the longest import contract in pyproject.toml beside the package; 0 if none."""
    path = top_folder(folder).parent / "pyproject.toml"
    if not path.exists():
        return 0
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    contracts = settings.get("tool", {}).get("importlinter", {}).get("contracts", [])
    return max((len(contract.get("layers", [])) for contract in contracts), default=0)


# The figures


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
