"""Every method with every space, gradient and kind of data: what runs, and what is refused.

`docs/methods.py` writes the table of it into `docs/methods.md`.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cases import GRADIENTS, METHODS, REINFORCE, SPACES, TwoChoices, batch

import gradnas
from gradnas.data import ChunkLengths, DataConfig, TextConfig
from gradnas.tasks import kind_of
from gradnas.tasks.images.settings import SearchConfig
from gradnas.tasks.text.settings import TextSearchConfig
from gradnas.tasks.your_task.given import GivenTask
from gradnas.tasks.your_task.settings import TaskSearchConfig

CPU = torch.device("cpu")
EPOCHS = 12  # of which a selection may take some

ALL_GRADIENTS = {
    "first order": GRADIENTS[0],
    "finite difference": GRADIENTS[1],
    "unrolled, exact": GRADIENTS[2],
    "unrolled, two steps": GRADIENTS[3],
    "implicit, Neumann": GRADIENTS[4],
    "implicit, conjugate gradients": GRADIENTS[5],
    "rewards": REINFORCE,
}
# Kind of data, and what is searched on it.
WHERE = {
    # As small as they can be: there are many combinations.
    "images: cells": gradnas.ConvCell(channels=4, cells=2, nodes=1),
    "images: chain": SPACES["chain"],
    "images: nas-bench-201": gradnas.NasBench201(channels=4, cells=1, nodes=3),
    "text: recurrent cell": gradnas.RecurrentCell(hidden=4, embedding=4, nodes=2),
    "own task: module with choices": None,
}
RUNS = "runs"


@functools.cache
def _data(kind: str) -> Any:
    """What is searched on: a few examples."""
    if kind == "images":
        data = DataConfig(source="digits", per_class=3)
        return data, data.load()
    if kind == "text":
        folder = Path(tempfile.mkdtemp())
        for name in ("train", "valid", "test"):
            (folder / f"{name}.txt").write_text("one two three four\n" * 20, encoding="utf-8")
        text = TextConfig(source=str(folder))
        return text, text.load()
    task = gradnas.Task(
        model=lambda: TwoChoices(smooth=False), train=batch(0, size=24), loss=F.cross_entropy
    )
    return None, task


def _config(where: str, settings: dict[str, Any]) -> Any:
    kind = where.partition(":")[0]
    data, loaded = _data(kind)
    common = {"epochs": EPOCHS, "candidates": 0, "guard": "off", **settings}
    if kind == "images":
        return SearchConfig(space=WHERE[where], data=data, batch_size=6, **common)
    if kind == "text":
        chunks = ChunkLengths(base=5)
        return TextSearchConfig(
            space=WHERE[where], data=data, batch_size=2, chunks=chunks, **common
        )
    given = TaskSearchConfig.of(GivenTask(loaded))
    return gradnas.tasks.your_task.settings.replace(given, batch_size=4, **common)


def outcome(method: str, where: str, gradient: str) -> str:
    """Two steps, and the rounds of a selection: `RUNS`, or the sentence of the refusal."""
    settings = {**METHODS[method], "gradient": ALL_GRADIENTS[gradient]}
    try:
        config = _config(where, settings)
        loaded = _data(where.partition(":")[0])[1]
        kind = kind_of(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = kind.search_task(config, loaded, CPU)
            task.check_scores()
            task.start_epoch()
            for one in itertools.islice(task.batches(), 2):
                report = task.step(one)
            assert torch.isfinite(report.train_loss)
            if task.search.selecting is not None:
                task.search.schedule.epoch = EPOCHS - 1
                task.select()
                task.search.result()
            if any(task.search.selection.candidates):
                chosen = task.choose(kind.of(config).measure)
                assert not isinstance(chosen, str), chosen
    except ValueError as error:
        return str(error)
    return RUNS
