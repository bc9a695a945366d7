"""What a verdict says, in sentences and tables."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

Told = Any  # a `Verdict`, whose module knows this one
WIDTH = 71  # columns of a line, so that a prefix fits beside it in 80
NUM_NAMED = 4  # of many choices, a sentence names so many


def sentence(verdict: Told, typed: bool = False) -> str:
    """What it comes to.

    Args:
        typed: for readers of a program's run, who type commands, and not for those of Python.
    """
    if not verdict.moved:
        return (
            "Nothing was decided: the alphas have hardly moved from where they started, so the "
            "derived network is chance."
        )
    parts = [
        _about_choices(verdict),
        _about_gap(verdict),
        _about_candidates(verdict, typed),
        _about_random(verdict),
    ]
    return "; ".join(part for part in parts if part) + "."


def _about_choices(verdict: Told) -> str:
    undecided = verdict.undecided
    judged = len(verdict.choices) - len(verdict.not_compared)
    if not judged:
        return (
            "No other architecture was compared with the derived one, so nobody knows what was "
            "decided"
        )
    than = "than its best alternative by more than the noise"
    unconfirmed = [c.name for c in verdict.choices if c.state == "not confirmed"]
    if unconfirmed:
        text = "Not confirmed: what was chosen "
        if len(verdict.choices) > 1:
            text += f"in {len(unconfirmed)} of {judged} choices "
        text += (
            "was taken by measuring on the same held-out examples, which cannot confirm it: train "
            "it beside a few random ones"
            if verdict.held_out
            else "is better on examples that the weights have learned from, which cannot confirm "
            "it: give other validation data"
        )
        if undecided:
            text += f"; undecided: in {_listed(undecided)} it is not better {than}"
        return text
    if not undecided and verdict.not_compared:
        was = "was" if judged == 1 else "were"
        there = "there" if judged == 1 else "in each"
        return (
            f"Of {len(verdict.choices)} choices {judged} {was} compared: decided, what was chosen "
            f"{there} is better {than}; of the others nobody knows"
        )
    if not undecided:
        where = "" if judged == 1 else f"in each of {judged} choices "
        return f"Decided: {where}what was chosen is better {than}"
    where = ""
    if len(verdict.choices) > 1:
        of = f"in {len(undecided)} of {judged} choices"
        if verdict.not_compared:
            all_choices = len(verdict.choices)
            of = f"in {len(undecided)} of the {judged} choices compared (of {all_choices})"
            if judged == 1:
                of = f"in the one choice that was compared (of {all_choices})"
        where = f"{of} ({_listed(undecided)}) "
    unknown = [c for c in verdict.choices if c.name in undecided and c.noise is None]
    if len(unknown) == len(undecided):
        # A measure of whole batches, and few of them: a large difference may be noise or none.
        return (
            f"Undecided: {where}whether what was chosen is better than its best alternative cannot "
            f"be told, since {_groups(verdict)} do not show the noise: smaller batches, or more "
            "held-out examples, would"
        )
    text = f"Undecided: {where}what was chosen is not better {than}"
    contradicted = [c.name for c in verdict.choices if c.state == "contradicted"]
    if contradicted and len(verdict.choices) > 1:
        text += f", and in {_listed(contradicted)} the alternative is better"
    elif contradicted:
        text += ", the alternative even is better"
    return text


def _about_gap(verdict: Told) -> str:
    """Where the derived network is far behind the mixture, its weights tell little."""
    mean = verdict.random_mean
    if verdict.mixture is None or mean is None:
        return ""
    behind = verdict.gain(verdict.mixture, verdict.derived)
    ahead = verdict.gain(verdict.derived, mean)
    if behind <= 0 or behind < 4.0 * max(ahead, 0.0):
        return ""
    return (
        f"the derived network ({verdict.measure.text(verdict.derived)}) is much nearer to random "
        f"ones than to the mixture ({verdict.measure.text(verdict.mixture)}), so these weights say "
        "little about single architectures"
    )


def _about_candidates(verdict: Told, typed: bool) -> str:
    if verdict.likeliest < 2:
        return ""
    best = verdict.best()
    mean = verdict.measure.text(verdict.derived)
    name = verdict.measure.name
    if best.is_better:
        takes = f"result.derive(candidates={verdict.likeliest}) takes it"
        if typed:
            takes = "gradnas train takes it by its text"
        return (
            f"the best of the {verdict.likeliest} likeliest architectures has {name} "
            f"{verdict.measure.text(best.value)}, the derived one {mean}: {takes}"
        )
    if best.noise is None and verdict.gain(best.value, verdict.derived) > 0:
        return (
            f"the best of the {verdict.likeliest} likeliest architectures has {name} "
            f"{verdict.measure.text(best.value)}, the derived one {mean}, which may be noise"
        )
    return (
        f"none of the {verdict.likeliest} likeliest architectures is clearly better than the "
        f"derived one ({name} {mean})"
    )


def _groups(verdict: Told) -> str:
    number = "one group" if verdict.groups == 1 else f"{verdict.groups} groups"
    return f"held-out examples in {number}"


def _about_random(verdict: Told) -> str:
    mean = verdict.random_mean
    if mean is None:
        return ""
    spread = verdict.random_sd
    shown = verdict.measure.text(mean)
    if spread is None:
        return f"beside it one random architecture ({shown}), too few to tell what chance finds"
    shown += f" ± {verdict.measure.text(spread)}"
    is_better = verdict.gain(verdict.derived, mean) > 2.0 * spread
    word = "" if is_better else "not clearly "
    where = ""
    if is_better and not verdict.held_out:
        where = "on what the weights have learned from "
    elif is_better and verdict.taken:
        where = "on the examples that it was taken by "
    return f"{where}it is {word}better than {len(verdict.random)} random ones ({shown})"


def lines(verdict: Told, typed: bool = False, option: str = "") -> list[str]:
    """For a terminal of 80 columns.

    Args:
        typed: as of `sentence`; then the command that trains a better candidate comes last.
        option: what that command needs beside the architecture, with a space before it.
    """
    text = verdict.measure.text
    numbers = []
    if verdict.mixture is not None:
        numbers.append(f"mixture {text(verdict.mixture)}")
    derived = f"derived network {text(verdict.derived)}"
    if verdict.likeliest > 1:
        derived += f" (rank {verdict.rank} of {len(verdict.candidates)})"
    numbers.append(derived)
    if verdict.likeliest > 1:
        numbers.append(f"best candidate {text(verdict.best().value)}")
    mean = verdict.random_mean
    if mean is not None:
        spread = verdict.random_sd
        numbers.append(f"random {text(mean)}" + ("" if spread is None else f" ± {text(spread)}"))
    where = f"{verdict.measure.name} on {verdict.examples} {verdict.kind} {verdict.measure.noun}"
    said = [
        f"{where}: {', '.join(numbers)}",
        f"verdict: {sentence(verdict, typed)}",
        *[f"note: {note}" for note in verdict.notes],
    ]
    found = []
    for text_line in said:
        found += wrapped(text_line)
    is_better = verdict.moved and verdict.likeliest > 1 and verdict.best().is_better
    if typed and is_better:
        # One line however long, so that it can be copied.
        found.append(f"best candidate: gradnas train {shlex.quote(verdict.best().text)}{option}")
    return found


def wrapped(text: str) -> list[str]:
    """A sentence in lines for a terminal of 80 columns."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def table(verdict: Told) -> list[str]:
    """A line for each choice."""
    rows = [("choice", "chosen", "p", "best alternative", "lead", "noise", "")]
    for choice in verdict.choices:
        has_alternative = choice.alternative is not None
        rows.append(
            (
                choice.name,
                choice.chosen,
                "" if choice.probability is None else f"{choice.probability:.2f}",
                choice.alternative or "",
                verdict.measure.text(choice.lead) if has_alternative else "",
                "" if choice.noise is None else verdict.measure.text(choice.noise),
                choice.state if verdict.moved else "undecided",
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NUM_NAMED])
    more = len(names) - NUM_NAMED
    return shown + (f" and {more} more" if more > 0 else "")
