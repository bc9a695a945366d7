"""The options of a command in groups, as its help shows them.

tyro draws one box for the options of a dataclass, and others only for nested ones, whose names
become prefixes, and for options of which at most one may be given. So the groups are made of what
it has drawn.
"""

from __future__ import annotations

import re

FEWEST = 12  # options, below which they stand in one box

# Heading -> the options under it, of all commands, in the order of the boxes.
GROUPS: dict[str, tuple[str, ...]] = {
    "what is searched or trained": (
        "recipe",
        "task",
        "import",
        "target",
        "features",
        "weights",
        "example",
        "rows",
        "noise",
        "output",
    ),
    "data": (
        "data",
        "kind",
        "other-data",
        "other-task",
        "image-size",
        "fit",
        "test-fraction",
        "valid-fraction",
        "valid-per-class",
        "valid-augment",
        "own-validation",
        "per-class",
        "max-pixels",
        "level",
        "min-count",
        "workers",
    ),
    "space: what may be built": (
        "channels",
        "cells",
        "nodes",
        "width-mult",
        "hidden",
        "primitives",
        "max-complexity",
        "form",
        "start",
    ),
    "relaxation and gradient": (
        "relaxation",
        "gradient",
        "reinforce",
        "terms",
        "stabilizers",
        "alpha-lr",
        "warmup-epochs",
    ),
    "cost: budgets and targets": (
        "budget-ms",
        "budget-macs",
        "budget-params",
        "target-ms",
        "target-macs",
        "target-params",
        "latency",
        "cost-image-size",
    ),
    "what comes of it: decision and comparison": (
        "selection",
        "guard",
        "candidates",
        "random",
        "random-cells",
        "plain",
        "compare",
        "truth",
    ),
    "the study": (
        "methods",
        "seeds",
        "finals",
        "short-epochs",
        "final-epochs",
        "training",
        "resume-failed",
        "max-failures",
        "engine",
        "address",
        "gpus",
        "partition",
        "hours",
        "cluster",
        "devices",
    ),
    "the measurement": ("warmup", "repeats", "clock", "channels-last"),
    "training": (
        "epochs",
        "batch-size",
        "lr",
        "loss",
        "effort",
        "plain-darts",
        "max-seconds",
        "max-steps",
        "auxiliary",
        "seed",
    ),
    "device and memory": (
        "device",
        "precision",
        "threads",
        "checkpoint-cells",
        "capture",
        "compile",
        "local-batch-norm",
    ),
    "the text": ("prompt", "tokens", "temperature"),
    "run folder and output": ("out", "normalised", "tensorboard", "estimate", "format", "help"),
}
OTHERS = "other options"
# In commands with a form of their own: (usage begins with, option) -> heading.
ELSEWHERE = {
    ("search", "form"): "cost: budgets and targets",
    ("study", "form"): "cost: budgets and targets",
    ("study", "workers"): "the study",
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OPTION = re.compile(r"│ -(?:.*? -)??-([\w-]+)")


def grouped(text: str) -> str:
    """The help of a command with a box for each group, in the place of the one for all options.

    As it is, where there are few, or where the terminal has no characters for boxes.
    """
    rows = text.splitlines()
    plain = [_COLOUR.sub("", row) for row in rows]
    begin = next((k for k, row in enumerate(plain) if row.startswith("╭─ options ")), None)
    if begin is None:
        return text
    end = next(k for k in range(begin, len(plain)) if plain[k].startswith("╰"))
    entries: list[tuple[str, list[str]]] = []
    for row, bare in zip(rows[begin + 1 : end], plain[begin + 1 : end], strict=True):
        name = _OPTION.match(bare)
        if name is not None:
            entries.append((name[1], []))
        entries[-1][1].append(row)
    if len(entries) < FEWEST:
        return text
    command = re.search(r"usage: gradnas (\w+)", "\n".join(plain))
    boxes: dict[str, list[tuple[int, list[str]]]] = {}
    for name, own in entries:
        heading, place = _place(command[1] if command else "", name)
        boxes.setdefault(heading, []).append((place, own))
    width = len(plain[begin])
    shown = []
    for heading in (*GROUPS, OTHERS):
        if heading not in boxes:
            continue
        shown.append(f"╭─ {heading} ".ljust(width - 1, "─") + "╮")
        for _, own in sorted(boxes[heading], key=lambda entry: entry[0]):
            shown += own
        shown.append("╰".ljust(width - 1, "─") + "╯")
    return "\n".join([*rows[:begin], *shown, *rows[end + 1 :]]) + "\n"


def _place(command: str, option: str) -> tuple[str, int]:
    """The heading of an option, and where it stands under it."""
    for own, names in GROUPS.items():
        heading = ELSEWHERE.get((command, option), own)
        if option in names:
            return heading, names.index(option)
    return OTHERS, 0
