"""The baseline of every search as its report shows it: alphas that never learnt.

Operations by what the supernet loses without them, from alphas that stay where they start, beat
learnt ones in most spaces of Wang et al., ICLR 2021 (arXiv 2108.04392): a search that is no better
has learnt nothing with its alphas. It is a search of its own, and costs about half as much; the
report says how to run it, and shows it where it was run.
"""

from __future__ import annotations

from pathlib import Path

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.registry import load_architecture
from gradnas.config import JsonObject, read_object
from gradnas.reports.folder import Folder, number
from gradnas.reports.parts import escaped, row
from gradnas.reports.words import quoted
from gradnas.search.folder import IN_PYTHON

ENDING = "-blank"  # of the folder beside that of the search
SELECTION = "perturbation-selection:interval=1,learn_alphas=false"
CAPTION = (
    "The same search with alphas that never learn: what it decides, it decides by what the "
    "supernet loses without each operation (DARTS-PT, arXiv 2108.04392). Learnt alphas that lead "
    "to nothing better were not worth learning."
)


def blank_section(folder: Folder) -> str:
    """HTML; empty for what is no finished search, and for such a baseline itself.

    Raises:
        ValueError: a file in the folder of the baseline is damaged.
    """
    own = folder.config.get("selection")
    measures = isinstance(own, dict) and own.get("learn_alphas") is False
    if not folder.is_search or folder.state != "finished" or measures:
        return ""
    if folder.config.get("cost") is not None:
        return (
            '<p class="caption">Alphas that never learnt, the baseline of other searches, keep no '
            "budget and no target: here it is random architectures that do.</p>"
        )
    path = baseline_of(folder.path)
    if not (path / runs.GENOTYPE).exists():
        told = "Not run so far. It costs about half as much as the search, and is shown here then:"
        return (
            f"<p>{escaped(told)}</p>\n<pre>{escaped(command(folder))}</pre>\n"
            f'<p class="caption">{escaped(CAPTION)}</p>'
        )
    return f'{_table(folder, path)}\n<p class="caption">{escaped(CAPTION)}</p>'


def baseline_of(path: Path) -> Path:
    """Where the baseline of a search is looked for: the folder beside it."""
    named = path if path.name else path.resolve()
    return named.with_name(named.name + ENDING)


def command(folder: Folder) -> str:
    """The command that runs the baseline of a search; the call, where it was run by a program."""
    if folder.source == IN_PYTHON:
        selection = "PerturbationSelection(interval=1, learn_alphas=False)"
        out = str(baseline_of(folder.path))
        return f"Search(..., selection={selection}).fit(..., out={out!r})"
    options = ""
    if not folder.relaxation.trains_mixtures:
        # Weights that learnt on single operations say nothing of a mixture without one of them.
        options = " --relaxation softmax --gradient first-order"
    config = quoted(folder.path / runs.CONFIG)
    out = quoted(baseline_of(folder.path))
    return f"gradnas search {config}{folder.options}{options} --selection {SELECTION} --out {out}"


def _table(folder: Folder, path: Path) -> str:
    blank = load_architecture(path / runs.GENOTYPE)
    rows = [row(("", "learnt alphas", "alphas that never learnt"), tag="th")]
    found = folder.architecture
    if found is not None:
        rows.append(row(("architecture", escaped(found.to_text()), escaped(blank.to_text()))))
        rows.append(row(("the same in", "", escaped(_agreement(found, blank)))))
    for what, file, keys in (
        ("derived network, held out", runs.RESULTS, ("verdict", "derived")),
        ("accuracy by the truth", runs.TRUTH, ("accuracy",)),
    ):
        values = [_value(place / file, keys) for place in (folder.path, path)]
        if None not in values:
            rows.append(row((what, *(f"{value:.4g}" for value in values))))
    return f'<table class="wide">{"".join(rows)}</table>'


def _agreement(found: Architecture, blank: Architecture) -> str:
    own = found.parts()
    other = blank.parts()
    same = sum(other.get(place) == what for place, what in own.items())
    return f"{same} of {len(own)} decisions"


def _value(path: Path, keys: tuple[str, ...]) -> float | None:
    """A number in a file; None where there is none."""
    if not path.exists():
        return None
    value: object = read_object(path)
    for key in keys:
        known: JsonObject = value if isinstance(value, dict) else {}
        value = known.get(key)
    return None if value is None else number(value, f"{path}: {'.'.join(keys)}")
