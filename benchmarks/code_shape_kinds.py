"""Questions about kinds, which `code_shape.py` counts: where they stand in a syntax tree.

Which kind of architecture, space, network, data or run is this? Asked outside of `spaces/`,
`families/` and `tasks/`, by
- `isinstance` or a `case` with a class of `kind_classes`, or a table with such classes as keys;
- a comparison with such a class, with its name, or with one of KIND_WORDS, or of
  `type(x).__name__` with anything; it is one question, however many classes are in it;
- the class's name as text: several in one line are one question, and a plain word like "Chain",
  which may be a heading, counts in a comparison alone;
- a use of a name like `is_text`, or the comparison of one like `chain_space` with None.
"""

from __future__ import annotations

import ast
import re

from code_shape_counts import short

# Classes that stand for one kind among several. A new one with no base of KIND_BASES is added here.
KIND_CLASSES = {
    # architectures, and their files
    "Genotype",
    "Chain",
    # settings and state of the programs, one class for each kind of data
    "SearchConfig",
    "SearchRun",
    "TextSearchConfig",
    "TrainConfig",
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
