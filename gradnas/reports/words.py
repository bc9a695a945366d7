"""Numbers and sentences of a report that any kind of data and any family uses."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradnas import runs
from gradnas.config import counted
from gradnas.pictures.canvas import plain
from gradnas.reports.folder import Folder

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
HAPPENED = {
    "interrupted": "was interrupted and saved",
    "running": "is not finished: it is still at work, or it was killed",
}

Tone = Literal["good", "open", "bad"]


@dataclass(frozen=True)
class Summary:
    """The result in one sentence, and whether it is clearly good, clearly bad, or neither."""

    sentence: str
    tone: Tone = "open"


NOTHING_YET = Summary("No epoch is finished yet, so there are no results to show.")


def number_word(number: int) -> str:
    """Such as `five`; large ones in digits."""
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def count(number: int, noun: str) -> str:
    """Such as `five random cells`."""
    plural = "" if number == 1 else "s"
    return f"{number_word(number)} {noun}{plural}"


def duration(seconds: float) -> str:
    """Such as `12.3 s`, `5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def in_words_of(folder: Folder, text: str) -> str:
    """The sentence with the noun of the run's family for `cell`."""
    if folder.noun == "cell":
        return text
    # Not within a name or an option: `--random-cells` stays what one types.
    return re.sub(
        r"(?<![-\w])(c|C)ell(s?)\b", lambda word: _noun(folder.noun, word[1], word[2]), text
    )


def _noun(noun: str, first_letter: str, plural: str) -> str:
    written = noun.capitalize() if first_letter == "C" else noun
    return written + plural


def subject(folder: Folder) -> str:
    """What the trained cell may be called: `searched cell` only where this search ended with it."""
    training = folder.training
    if not folder.is_search or training is None:
        return "cell"
    return "searched cell" if training.architecture == folder.architecture else "trained cell"


# -- how far a run has come ------------------------------------------------------------------------


def done_of(folder: Folder) -> str:
    """Such as `3 of 12 epochs are done`."""
    done = len(folder.metrics.rows)
    return f"{done} of {counted(folder.epochs, 'epoch')} {'is' if done == 1 else 'are'} done"


def so_far(folder: Folder) -> str:
    """How a sentence about a search begins."""
    if folder.state == "finished":
        return "The search is finished:"
    return f"After {len(folder.metrics.rows)} of {counted(folder.epochs, 'epoch')},"


def notices(folder: Folder, collapse: str | None) -> list[str]:
    """What a reader must know before anything else.

    That is a run that is not finished or has failed, a training of another cell, a collapsing
    search.
    """
    sentences = []
    if folder.state != "finished":
        sentences.append(_unfinished(folder, "run"))
    child = folder.child
    if child is not None and child.state != "finished":
        sentences.append(_unfinished(child, "training in train/"))
    if child is not None and subject(folder) == "trained cell":
        sentences.append("The cell that was trained is not the one that this search ended with.")
    for own in (folder, child):
        if own is not None and own.state == "finished":
            sentences += _lost_epochs(own)
    undecided = folder.results.get("undecided")
    if isinstance(undecided, str):
        text = plain(undecided)
        sentences.append(f"{text[:1].upper()}{text[1:]}.")
    if collapse is not None:
        sentences.append(f"{collapse} See below, under the mixing weights.")
    return sentences


def _lost_epochs(folder: Folder) -> list[str]:
    """What a finished run must say where its metrics are not those of all epochs."""
    found = len(folder.metrics.rows)
    was_ended = "stopped" in folder.results  # by the guard
    if found >= folder.epochs or was_ended or folder.config.get("max_steps") is not None:
        return []
    return [
        f"{folder.metrics.path.name} holds only {found} of {counted(folder.epochs, 'epoch')}: the "
        "others were lost."
    ]


def _unfinished(folder: Folder, what: str) -> str:
    done = len(folder.metrics.rows)
    far = done_of(folder)
    if folder.random and done >= folder.epochs:
        trained = sum(own.state == "finished" for own in folder.random)
        wanted = folder.setting("random_cells", kind=int)
        far = f"all {done} epochs are done, and {trained} of {count(wanted, 'random cell')} trained"
    if folder.state == "failed":
        message = plain(folder.status.get("message", "")).strip()
        happened = f"has failed ({message})" if message else "has failed"
    else:
        happened = HAPPENED.get(folder.state, "is not finished")
    return f"The {what} {happened}; {far}."


def durations(folder: Folder) -> list[tuple[str, str]]:
    """How long the search and the training took, each with what it is."""
    found = []
    for own in (folder, folder.child):
        if own is not None and own.timings.rows:
            seconds = sum(value for _, value in own.timings.series("seconds"))
            found.append((duration(seconds), "of searching" if own.is_search else "of training"))
    return found


# -- how to go on ----------------------------------------------------------------------------------


def commands(folder: Folder, of_training: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What can be done with the run next: command and purpose.

    Commands name the folder by the path that was given.

    Args:
        of_training: what can be done with the trained network.
    """
    path = quoted(folder.path)
    lines: list[tuple[str, str]] = []
    for own in (folder, folder.child):
        if own is not None and own.state != "finished":
            what = "search" if own.is_search else "training"
            purpose = f"go on with the {what} from its last checkpoint"
            lines.append((f"gradnas resume {quoted(own.path)}{folder.options}", purpose))
    has_architecture = (folder.path / runs.GENOTYPE).exists()
    if folder.is_search and folder.child is None and has_architecture:
        purpose = in_words_of(folder, "train the cell from scratch, and five random ones too")
        lines.append((f"gradnas train {path}{folder.options} {random_option(folder)} 5", purpose))
    lines += of_training
    if has_architecture:
        purpose = f"{folder.drawn} as a picture (or .svg, .png)"
        file = f"{folder.drawn.removeprefix('the ')}.pdf"
        lines.append((f"gradnas draw {path} -o {file}", purpose))
    again = "search" if folder.is_search else "train"
    same = quoted(folder.path / runs.CONFIG)
    lines.append((f"gradnas {again} {same}{folder.options}", "run the same again in a new folder"))
    return lines


def random_option(folder: Folder) -> str:
    """The option for random architectures: of cells by its first name."""
    return "--random-cells" if folder.noun == "cell" else "--random"


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))
