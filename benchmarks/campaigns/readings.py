"""The files that are damaged, and the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import programs


@dataclass(frozen=True)
class Reading:
    """A file of a run folder and the commands that read it, each with the folder put in for RUN.

    Attributes:
        program: whose folder it is.
        is_stopped: the folder is of a run that was stopped after its last epoch.
        is_open: the file is the user's own, and what says something else is another file.
        without: patterns of what the folder lacks, which the commands then make.
    """

    file: str
    program: str
    commands: tuple[tuple[str, ...], ...]
    is_stopped: bool = False
    is_open: bool = False
    without: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A name for it, in lists and for the seeds of its cases."""
        verbs = ", ".join(command[0] for command in self.commands)
        return f"{self.file} ({self.program}: {verbs})"

    @property
    def is_of_tensors(self) -> bool:
        return Path(self.file).suffix in (".pt", ".safetensors")


RESUME = ("resume", "RUN")
REPORT = ("report", "RUN")
WATCH = ("watch", "RUN")
EVALUATE = ("evaluate", "RUN")
GENERATE = ("generate", "RUN", "--tokens", "5")
DRAW = ("draw", "RUN", "-o", "x.svg")
SHORT = ("--epochs", "1", "--max-steps", "1")
TRAIN = ("train", "RUN", *SHORT, "--channels", "2", "--cells", "2")
OWN_TASK = ("--task", "my_task.py")
SHOW_TABLE = ("latency", "show", "RUN/table.json")
FIT_TABLE = ("latency", "fit", "RUN/table.json")
STUDY = ("study", "my_task.py", *programs.SHORT_STUDY, "--out", "RUN")
STATUS = ("study", "status", "RUN")
STUDY_REPORT = ("study", "report", "RUN")
LOOK = ("data", "show", "-o", "RUN/sheet.svg")
READ_TEXT = ("data", "show", "RUN/text", "-o", "RUN/sheet.txt")
DISCOVER = ("discover", "RUN/t.csv", "--target", "y", *programs.SHORT_LAW, "--out", "RUN/law")
READINGS = (
    Reading("checkpoint.pt", "search", (RESUME,), is_stopped=True),
    Reading("checkpoint.pt", "text-train", (RESUME,), is_stopped=True),
    Reading("config.json", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("config.json", "search", (TRAIN, DRAW)),
    Reading("config.json", "train", (EVALUATE, REPORT)),
    Reading("config.json", "text-train", (EVALUATE, GENERATE)),
    Reading("config.json", "task-search", ((*RESUME, *OWN_TASK), REPORT), is_stopped=True),
    Reading("config.json", "task-train", ((*EVALUATE, *OWN_TASK), REPORT, WATCH)),
    Reading("config.json", "fit", (REPORT, WATCH)),
    Reading("config.json", "discover", (RESUME, REPORT), is_stopped=True),
    Reading("environment.json", "search", (RESUME, REPORT), is_stopped=True),
    Reading("status.json", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("data.json", "search", (RESUME, REPORT), is_stopped=True),
    Reading("data.json", "search", (TRAIN,)),
    Reading("data.json", "task-search", ((*RESUME, *OWN_TASK),), is_stopped=True),
    Reading("images.json", "search", (RESUME,), is_stopped=True),
    Reading("images.json", "search", (TRAIN,)),
    Reading("metrics.jsonl", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("timings.jsonl", "search", (REPORT, WATCH)),
    Reading("alphas.safetensors", "search", (REPORT, WATCH)),
    Reading("weights.safetensors", "train", (EVALUATE,)),
    Reading("weights.safetensors", "text-train", (GENERATE,)),
    Reading("results.json", "train", (EVALUATE, REPORT)),
    Reading("results.json", "search", (REPORT, WATCH)),
    Reading("results.json", "task-search", (REPORT, WATCH)),
    Reading("results.json", "task-train", ((*EVALUATE, *OWN_TASK), REPORT)),
    Reading("genotype.json", "search", (DRAW, REPORT, TRAIN, WATCH)),
    Reading("genotype.json", "task-search", (DRAW, (*TRAIN[:2], *SHORT, *OWN_TASK))),
    Reading("vocabulary.json", "text-train", (GENERATE, EVALUATE)),
    Reading("table.json", "table", (SHOW_TABLE, FIT_TABLE)),
    Reading("genotype.json", "chain-search", (DRAW, REPORT, WATCH)),
    Reading("latency.json", "chain-search", (RESUME, REPORT), is_stopped=True),
    Reading("study.json", "study", (STUDY, STATUS, STUDY_REPORT)),
    Reading("equal.json", "study", (STATUS, STUDY_REPORT, STUDY)),
    Reading("trials/search-default-0/results.json", "study", (STUDY, STATUS)),
    Reading("truth.csv", "truth", ((*REPORT, "--truth", "RUN/truth.csv"),), is_open=True),
    Reading("truth.npz", "truth", ((*REPORT, "--truth", "RUN/truth.npz"),)),
    Reading("truth.json", "truth", (REPORT,)),
    Reading("t.csv", "inputs", (DISCOVER,), is_open=True),
    Reading("pictures/train/b/0.png", "inputs", ((*LOOK, "RUN/pictures"),), is_open=True),
    Reading("images/train.parquet", "inputs", ((*LOOK, "RUN/images"),), is_open=True),
    Reading("text/train.txt", "inputs", (READ_TEXT,), is_open=True),
)
