"""The runs that are killed and whose files are mutated: every program, small enough for seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import forks

# Between two runs of the same these differ: times, and when checkpoints were written.
OF_THE_MOMENT = {
    "environment.json",
    "timings.jsonl",
    "checkpoint.pt",
    "checkpoint.previous.pt",
    "report.html",
    "costs.json",
    "equal.json",  # of a study: costs
}
LOGS = "logs"  # of the trials of a study: what they said
PREVIOUS = "checkpoint.previous.pt"  # where more than one was written, which is a matter of time
SENTENCE = "the cat sat on the mat and the dog ran after the cat in the old house by the sea"


# A task of one's own, in a file.
TASK = """
import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        operations = {"plain": nn.Linear(5, 3), "none": nn.Linear(5, 3, bias=False)}
        self.body = gradnas.Choice(operations, name="body")
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.body(x)))).squeeze(1)


def task():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    y = x[:, 0] - x[:, 1] ** 2
    return gradnas.Task(
        model=Net,
        train=(x[:40], y[:40]),
        test=(x[40:], y[40:]),
        loss=F.mse_loss,
        measures={"absolute_error": gradnas.lower(F.l1_loss)},
    )
"""
SHORT_LAW = ("--effort", "0.05", "--nodes", "1", "--primitives", "linear", "linear_exp")
OWN = ("--device", "cpu", "--threads", "1", "--epochs", "2", "--batch-size", "8")
SHORT_STUDY = (
    *("--seeds", "1", "--finals", "1", "--random", "1", "--short-epochs", "1"),
    *("--epochs", "1", "--final-epochs", "2", "--batch-size", "8"),
    *("--device", "cpu", "--threads", "1", "--workers", "1"),
)
CHOICES = {"format": "gradnas-choices", "version": 1, "choices": {"body": "none"}}


@dataclass(frozen=True)
class Program:
    """What makes a run folder: a command that is given `--out FOLDER` at the end.

    Attributes:
        more: options that its `resume` needs.
    """

    name: str
    arguments: tuple[str, ...]
    more: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str]:
        return [*self.arguments, "--out", str(folder)]

    def begin(self, folder: Path) -> int:
        """Make the folder."""
        return self._main(self.command(folder))

    def go_on(self, folder: Path) -> int:
        """Go on in the folder."""
        return self._main(["resume", str(folder), *self.more])

    def is_begun(self, folder: Path) -> bool:
        """Whether there is a run to go on with."""
        return (folder / "config.json").exists()

    def is_finished(self, folder: Path) -> bool:
        """Whether the folder says that its run is finished."""
        status = folder / "status.json"
        if not self.is_begun(folder) or not status.exists():
            return False
        return json.loads(status.read_text()).get("status") == "finished"

    def _main(self, words: list[str]) -> int:
        from gradnas.cli import main

        return main(words)


@dataclass(frozen=True)
class OfTrials(Program):
    """A study; its trials are forks."""

    def begin(self, folder: Path) -> int:
        forks.trials_are_forks()
        return super().begin(folder)

    def go_on(self, folder: Path) -> int:
        return self.begin(folder)

    def is_begun(self, folder: Path) -> bool:
        return False  # the same command goes on

    def is_finished(self, folder: Path) -> bool:
        return (folder / "report.html").exists()  # which is written last


@dataclass(frozen=True)
class Timed(Program):
    """A search within milliseconds, with a table of them that is measured once."""

    def begin(self, folder: Path) -> int:
        space = self.arguments[1]
        table = Path(space).with_name("chain-table.json")
        if not table.exists():
            quickly = ("--repeats", "1", "--warmup", "0", "--batch-size", "2")
            code = self._main(["latency", "measure", space, *quickly, "--out", str(table)])
            assert code == 0, "no table"
        within = ("--target-ms", "1", "--latency", str(table))
        return self._main([*self.command(folder), *within])


@dataclass(frozen=True)
class InPython(Program):
    """A search in a program of the user's own, `Search.fit(out=...)`."""

    def begin(self, folder: Path) -> int:
        return self._fit(folder, resume=False)

    def go_on(self, folder: Path) -> int:
        return self._fit(folder, resume=True)

    def _fit(self, folder: Path, *, resume: bool) -> int:
        import torch
        import torch.nn.functional as F

        from gradnas import Search

        space: dict[str, Any] = {}
        exec(TASK, space)
        torch.manual_seed(0)
        random = torch.Generator().manual_seed(0)
        batches = []
        for _ in range(5):
            x = torch.randn(8, 5, generator=random)
            batches.append((x, x[:, 0] - x[:, 1]))
        search = Search(space["Net"]())
        search.fit(
            batches[:3],
            batches[3:],
            F.mse_loss,
            epochs=3,
            progress=False,
            out=folder,
            resume=resume,
        )
        return 0


@dataclass(frozen=True)
class Measured(Program):
    """A folder with a table of latencies; it is no run."""

    def begin(self, folder: Path) -> int:
        folder.mkdir()
        return self._main([*self.arguments, "--out", str(folder / "table.json")])


@dataclass(frozen=True)
class WithTruth(Timed):
    """A search, with tables of what each architecture of its space reaches."""

    def begin(self, folder: Path) -> int:
        import numpy as np
        import torch

        from gradnas.config import from_json, read_object
        from gradnas.tasks.images.settings import SearchConfig

        code = super().begin(folder)
        if code != 0:
            return code
        config = from_json(SearchConfig, read_object(folder / "config.json"), "config.json")
        drawn = torch.Generator().manual_seed(0)
        texts = sorted({config.space.random_decision(drawn).to_text() for _ in range(200)})
        accuracies = [90.0 + 5.0 * k / len(texts) for k in range(len(texts))]
        lines = [f'"{text}",{accuracies[k]},80.5' for k, text in enumerate(texts)]
        (folder / "truth.csv").write_text("\n".join(["chain,accuracy,short", *lines]) + "\n")
        table = folder / "truth.npz"
        np.savez(table, chain=np.array(texts), accuracy=np.array(accuracies))
        return self._main(["report", str(folder), "--truth", str(table)])


@dataclass(frozen=True)
class Inputs(Program):
    """A folder with data of the user's: a table, pictures, text."""

    def begin(self, folder: Path) -> int:
        import numpy as np
        import pyarrow
        import pyarrow.parquet
        from PIL import Image

        rows = [f"{k},{2 * k}" for k in range(1, 13)]
        (folder / "text").mkdir(parents=True)
        (folder / "t.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
        for name in ("train", "valid", "test"):
            (folder / "text" / f"{name}.txt").write_text(f"{SENTENCE}\n" * 5)
        numbers = np.random.default_rng(0)
        encoded = []
        for label in ("a", "b"):
            place = folder / "pictures" / "train" / label
            place.mkdir(parents=True)
            for k in range(4):
                path = place / f"{k}.png"
                Image.fromarray(numbers.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)
                encoded.append({"bytes": path.read_bytes(), "path": path.name})
        shutil.copytree(folder / "pictures" / "train", folder / "pictures" / "test")
        table = pyarrow.table({"image": encoded, "label": [0, 0, 0, 0, 1, 1, 1, 1]})
        (folder / "images").mkdir()
        for name in ("train", "test"):
            pyarrow.parquet.write_table(table, folder / "images" / f"{name}.parquet")
        return 0


def read_alone(place: Path) -> list[Program]:
    """Folders that are read and never killed, by the configurations of `programs`."""
    quickly = ("--repeats", "1", "--warmup", "0", "--batch-size", "2")
    return [
        Measured("table", ("latency", "measure", str(place / "search.json"), *quickly)),
        WithTruth("truth", ("search", str(place / "chain-search.json"))),
        Inputs("inputs", ()),
    ]


def programs(place: Path) -> list[Program]:
    """All that make run folders; their configurations and data are written into `place`."""
    text = place / "text"
    text.mkdir(exist_ok=True)
    words = SENTENCE.split()
    for number, name in enumerate(("train", "valid", "test")):
        some = [words[(7 * k + k // 3 + number) % len(words)] for k in range(400)]
        lines = [" ".join(some[k : k + 8]) for k in range(0, len(some), 8)]
        (text / f"{name}.txt").write_text("\n".join(lines) + "\n")
    made = []
    for name, command, config in _configurations(str(text)):
        path = place / f"{name}.json"
        path.write_text(json.dumps(config))
        kind = Timed if name == "chain-search" else Program
        made.append(kind(name, (command, str(path))))
    law = ("--example", "learning", "--noise", "0", *SHORT_LAW)
    made.append(Program("discover", ("discover", *law)))
    task = place / "my_task.py"
    task.write_text(TASK)
    choices = place / "choices.json"
    choices.write_text(json.dumps(CHOICES))
    own = ("--task", str(task))
    made.append(Program("task-search", ("search", str(task), *OWN), own))
    train = ("train", str(choices), *own, *OWN, "--random", "1")
    made.append(Program("task-train", train, own))
    made.append(InPython("fit", ()))
    made.append(OfTrials("study", ("study", task.name, *SHORT_STUDY)))
    return made


def _configurations(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    # Here, so that who only reads the list of programs needs no torch.
    from gradnas import (
        AlphaOptimizer,
        BinaryGates,
        ConvCell,
        FirstOrder,
        Genotype,
        MBConvChain,
        RecurrentCell,
        Stage,
    )
    from gradnas.config import to_json
    from gradnas.data import ChunkLengths, DataConfig, TextConfig
    from gradnas.randomness import generator_for
    from gradnas.tasks.images.settings import SearchConfig, TrainConfig
    from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig

    often = {"threads": 1, "checkpoint_seconds": 0.0, "device": "cpu"}
    images = DataConfig(source="digits", per_class=40)
    words = TextConfig(source=text)
    cells = ConvCell(channels=2, cells=2, nodes=2)
    recurrent = RecurrentCell(hidden=8, embedding=8, nodes=2)
    lengths = ChunkLengths(base=8)
    # Candidates are compared in the search of a task of one's own alone, whose networks are small.
    search = SearchConfig(
        candidates=0,
        space=cells,
        gradient=FirstOrder(),
        data=images,
        split_seed=0,
        epochs=2,
        batch_size=64,
        alphas=AlphaOptimizer(lr=0.05),
        **often,
    )
    chain = MBConvChain(
        stem_width=4,
        stem_stride=1,
        first_width=None,
        stages=(Stage(4, 2), Stage(6, 1, 2)),
        candidates=("mb3_k3", "zero"),
        last_width=8,
        image_size=8,
    )
    gates = BinaryGates()
    alphas = AlphaOptimizer(**{**gates.alpha_defaults, "lr": 0.05})
    chain_search = replace(search, space=chain, relaxation=gates, alphas=alphas)
    chain_training = TrainConfig(
        space=chain,
        genotype=chain.random_decision(generator_for(0)),
        data=images,
        epochs=2,
        batch_size=128,
        auxiliary=False,
        drop_path=0.0,
        **often,
    )
    training = TrainConfig(
        space=ConvCell(channels=2, cells=2),
        genotype=Genotype.named("DARTS_V2"),
        data=images,
        epochs=2,
        batch_size=128,
        auxiliary=False,
        drop_path=0.2,
        random_cells=1,
        **often,
    )
    text_search = TextSearchConfig(
        candidates=0,
        space=recurrent,
        gradient=FirstOrder(),
        data=words,
        chunks=lengths,
        epochs=2,
        batch_size=8,
        **often,
    )
    text_training = TextTrainConfig(
        space=recurrent,
        genotype=recurrent.random_decision(generator_for(0)),
        data=words,
        chunks=lengths,
        epochs=2,
        batch_size=8,
        eval_batch_size=4,
        **often,
    )
    return [
        ("search", "search", to_json(search)),
        ("train", "train", to_json(training)),
        ("chain-search", "search", to_json(chain_search)),
        ("chain-train", "train", to_json(chain_training)),
        ("text-search", "search", to_json(text_search)),
        ("text-train", "train", to_json(text_training)),
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> content of all files of a run, those within it too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def differences(folder: Path, reference: Path) -> list[str]:
    """What is not in a folder as in the one that nobody disturbed."""
    own, whole = files_of(folder), files_of(reference)
    found = []
    for name in sorted({*own, *whole}):
        if Path(name).name == PREVIOUS:
            continue
        if name not in own:
            found.append(f"{name} is missing")
        elif name not in whole:
            found.append(f"{name} is left over")
        elif not is_of_the_moment(name) and own[name] != whole.get(name):
            found.append(f"{name} differs")
    return found


def is_of_the_moment(name: str) -> bool:
    """Whether a file of a run differs between two of the same."""
    return Path(name).name in OF_THE_MOMENT or Path(name).parts[0] == LOGS
