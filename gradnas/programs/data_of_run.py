"""The data of a run folder: what was read, and whether the same data are there when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradnas import runs
from gradnas.config import read_object
from gradnas.data.fingerprint import Fingerprint
from gradnas.tasks.kind import Kind


def keep_data(
    run: runs.Run, kind: Kind[Any, Any, Any], data: object, changes: Sequence[str] = ()
) -> None:
    """Write what was read, and what it is known again by, into a run folder.

    Args:
        changes: what was other in data that the run had before.
    """
    entries = {
        "read": kind.read(data).to_json(),
        "fingerprint": kind.fingerprint(data).to_json(),
        "changes": list(changes),
    }
    runs.write_json(run.path / runs.DATA, entries)


def differences(run: runs.Run, kind: Kind[Any, Any, Any], data: object) -> list[str]:
    """What differs between the data of a run folder and these, each a part of a sentence.

    Nothing does where the folder, of an earlier version, says nothing of its data.

    Raises:
        ValueError: the file of the folder is damaged.
    """
    path = run.path / runs.DATA
    if not path.exists():
        return []
    before = Fingerprint.from_json(read_object(path).get("fingerprint"), str(path))
    return before.differences(kind.fingerprint(data))


def check_data(run: runs.Run, kind: Kind[Any, Any, Any], data: object) -> None:
    """ValueError, which says what differs, where these are not the data that a run began with."""
    found = differences(run, kind, data)
    if found:
        what = kind.other_data or "give the right ones with --data"
        raise ValueError(
            f"{kind.read(data).source} is not the data that {run.path} began with: "
            f"{'; '.join(found)}; {what}, or go on with these all the same with --other-data"
        )
    kind.check_same(run, data)


def accept_data(run: runs.Run, kind: Kind[Any, Any, Any], data: object) -> list[str]:
    """Let a run go on with these data, whatever it began with; what differs, each a sentence.

    The folder keeps the sentences, and the report shows them.

    Raises:
        ValueError: the network does not fit the data.
    """
    kind.check_same(run, data)
    found = differences(run, kind, data)
    if not found:
        return []
    before = read_object(run.path / runs.DATA).get("changes", [])
    epochs = len(run.records())
    sentence = f"after {epochs} epochs the run went on with other data: {'; '.join(found)}"
    keep_data(run, kind, data, [*before, sentence])
    for own in (run.path / "random").glob("*"):
        # Random architectures that wait for the end of the run, or for theirs.
        if (own / runs.DATA).exists():
            accept_data(runs.Run(own), kind, data)
    return [sentence]


def check_followed(
    searched: runs.Run, kind: Kind[Any, Any, Any], data: object, *, other: bool
) -> list[str]:
    """What differs between the data of a search and those of a training that follows it.

    Args:
        other: they may differ.

    Returns:
        What is to be said of that.

    Raises:
        ValueError: they differ, and may not.
    """
    found = differences(searched, kind, data)
    if not found:
        return []
    if other:
        return [f"the search in {searched.path} saw other data: {'; '.join(found)}"]
    what = kind.other_data or "name the data to train on with --data"
    raise ValueError(
        f"{kind.read(data).source} is not the data that the search in {searched.path} saw: "
        f"{'; '.join(found)}; {what}, or train on these all the same with --other-data"
    )
