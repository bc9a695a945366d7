"""The names of the files of a run folder."""

from __future__ import annotations

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
ALPHAS = "alphas.safetensors"
GENOTYPE = "genotype.json"
WEIGHTS = "weights.safetensors"
RESULTS = "results.json"
DATA = "data.json"
PICTURE = "cells.svg"
REPORT = "report.html"
TRUTH = "truth.json"  # what a truth says of a search
# What kinds of data and costs add.
VOCABULARY = "vocabulary.json"
IMAGES = "images.json"
LATENCY = "latency.json"
# Of a discovery.
LAW_TEX = "law.tex"
LAW_PY = "law.py"

LOCK = ".lock"  # while a process works in the folder

# Written by a run; `make_way` removes them, and temporary names are made of them.
OWN = (
    CONFIG,
    ENVIRONMENT,
    STATUS,
    METRICS,
    TIMINGS,
    CHECKPOINT,
    PREVIOUS,
    ALPHAS,
    GENOTYPE,
    WEIGHTS,
    RESULTS,
    DATA,
    PICTURE,
    REPORT,
    TRUTH,
    VOCABULARY,
    IMAGES,
    LATENCY,
    LAW_TEX,
    LAW_PY,
)
