"""The run folder: names, atomic writes, checkpoints, metrics."""

from gradnas.files import write_atomically, write_json
from gradnas.runs.beginning import discard, made_folder
from gradnas.runs.checkpoint import State, read_checkpoint
from gradnas.runs.epoch import Epoch, OnEpoch
from gradnas.runs.folder import Record, Run, read_tensors
from gradnas.runs.keeper import Interrupted, Keeper, NonFiniteError
from gradnas.runs.lock import Busy, is_locked, locked
from gradnas.runs.names import (
    ALPHAS,
    CHECKPOINT,
    CONFIG,
    DATA,
    ENVIRONMENT,
    GENOTYPE,
    IMAGES,
    LATENCY,
    LAW_PY,
    LAW_TEX,
    METRICS,
    PICTURE,
    PREVIOUS,
    REPORT,
    RESULTS,
    STATUS,
    TIMINGS,
    TRUTH,
    VOCABULARY,
    WEIGHTS,
)

__all__ = [
    "ALPHAS",
    "CHECKPOINT",
    "CONFIG",
    "DATA",
    "ENVIRONMENT",
    "GENOTYPE",
    "IMAGES",
    "LATENCY",
    "LAW_PY",
    "LAW_TEX",
    "METRICS",
    "PICTURE",
    "PREVIOUS",
    "REPORT",
    "RESULTS",
    "STATUS",
    "TIMINGS",
    "TRUTH",
    "VOCABULARY",
    "WEIGHTS",
    "Busy",
    "Epoch",
    "Interrupted",
    "Keeper",
    "NonFiniteError",
    "OnEpoch",
    "Record",
    "Run",
    "State",
    "discard",
    "is_locked",
    "locked",
    "made_folder",
    "read_checkpoint",
    "read_tensors",
    "write_atomically",
    "write_json",
]
