"""The command lines of `golden.py`, in groups: every program of gradnas, each of them tiny."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from golden_forks import Golden, has_lines
from golden_inputs import (
    corpus,
    data_table,
    edited,
    fix_table,
    folder_of_images,
    phone_table,
    written,
)

IMAGES = ("--per-class", "8", "--channels", "4", "--cells", "3", "--nodes", "2")
IMAGES += ("--epochs", "2", "--warmup-epochs", "1", "--batch-size", "20")
CHAIN = ("--per-class", "12", "--valid-per-class", "4", "--width-mult", "0.25")
CHAIN += ("--epochs", "2", "--warmup-epochs", "1", "--batch-size", "32")
TEXT = ("--hidden", "8", "--nodes", "3", "--epochs", "2", "--batch-size", "8")
TRAINING = ("--per-class", "8", "--epochs", "2", "--batch-size", "20")


def search_images(g: Golden) -> None:
    """Cells on the digits: every relaxation and gradient that a configuration can name."""
    g.run("images", "search", "digits", *IMAGES, "--out", "images")
    ways: dict[str, dict[str, Any]] = {
        "second": {"gradient": {"type": "Unrolled"}},
        "exact": {"gradient": {"type": "Unrolled", "mode": "exact"}},
        "implicit": {"gradient": {"type": "Implicit", "steps": 2}},
        "gumbel": {"relaxation": {"type": "GumbelSoftmax"}, "gradient": {"type": "Unrolled"}},
        "sigmoid": {"relaxation": {"type": "Sigmoid"}, "valid_augment": True},
        "reinforce": {
            "relaxation": {"type": "GumbelSoftmax"},
            "gradient": {"type": "Reinforce", "samples": 2},
        },
        "checkpointed": {"checkpoint_cells": True, "label_smoothing": 0.1},
        "bf16": {"precision": "bf16", "alpha_every": 2},
    }
    for name, changes in ways.items():
        config = edited("images/config.json", f"configs/{name}.json", epochs=2, **changes)
        g.run(name, "search", config, "--max-steps", "2" if name == "bf16" else "9", "--out", name)
    g.run("pulled", "search", "digits", *IMAGES, "--target-params", "3000", "--out", "pulled")
    g.run("estimate", "search", "digits", *IMAGES, "--estimate")


def search_chains(g: Golden) -> None:
    """Chains on the digits: gates in each mode, costs from tables with fixed times."""
    g.run("chain", "search", "proxyless-digits", *CHAIN, "--out", "chain")
    g.run(
        "measure", "latency", "measure", "chain", "--warmup", "0", "--repeats", "1", "-o", "m.json"
    )
    fix_table("m.json", "table.json")
    g.run("show", "latency", "show", "table.json", "--rows", "5")
    g.run("fit", "latency", "fit", "table.json", "-o", "fitted.json")
    g.run("show-fitted", "latency", "show", "fitted.json")
    g.run("show-phone", "latency", "show", written("phone.yaml", phone_table()))
    g.run("fit-phone", "latency", "fit", "phone.yaml", "-o", "phone.json")
    again = ("search", "chain/config.json")
    g.run("budget-macs", *again, "--budget-macs", "60000", "--out", "budget-macs")
    budget = ("--latency", "table.json", "--budget-ms", "3")
    g.run("budget-ms", *again, *budget, "--out", "budget-ms")
    target = ("--latency", "fitted.json", "--target-ms", "2")
    g.run("target-ms", *again, *target, "--out", "target-ms")
    linear = ("--target-ms", "2", "--form", "add#linear")
    g.run("linear", "search", "target-ms/config.json", *linear, "--out", "linear")
    g.run("sampled", *again, "--reinforce", "2", *budget, "--out", "sampled")
    for mode in ("full", "recompute"):
        relaxation = {"type": "BinaryGates", "mode": mode}
        config = edited("chain/config.json", f"configs/{mode}.json", relaxation=relaxation)
        g.run(mode, "search", config, "--max-steps", "4", "--out", mode)


def train_images(g: Golden) -> None:
    """Searched and published cells and chains; every recipe on images; images from a folder."""
    cells = (*TRAINING, "--channels", "4", "--cells", "3")
    g.run("train-images", "train", "images", *cells, "--random-cells", "2")
    g.run("train-again", "train", "images/train/config.json", "--seed", "5", "--out", "again")
    held_out = ("--valid-fraction", "0.25")
    g.run("train-chain", "train", "chain", *TRAINING, "--random-cells", "2", *held_out)
    g.run(
        "train-file",
        "train",
        "gumbel/genotype.json",
        "--recipe",
        "digits-eval",
        *cells,
        "--out",
        "f",
    )
    named = ("--recipe", "cifar10-eval", "--data", "digits", "--image-size", "32", "--threads", "1")
    named += ("--per-class", "2", "--epochs", "1", "--batch-size", "10")
    named += ("--channels", "2", "--cells", "3")
    g.run("train-named", "train", "DARTS_V2", *named, "--out", "named")
    folder_of_images("pictures")
    imagenet = ("--recipe", "imagenet-eval", "--data", "pictures", "--image-size", "224")
    imagenet += ("--epochs", "1", "--batch-size", "4", "--channels", "2", "--cells", "3")
    imagenet += ("--workers", "0", "--threads", "1")
    g.run("train-folder", "train", "images", *imagenet, "--out", "imagenet")
    for name, run in (("images", "images"), ("chain", "chain"), ("named", "named"), ("f", "f")):
        g.run(f"evaluate-{name}", "evaluate", run)
    g.run("evaluate-folder", "evaluate", "imagenet")


def text(g: Golden) -> None:
    """Recurrent cells: search, training, evaluation, writing."""
    corpus("corpus")
    g.run("text", "search", "text", "--data", "corpus", *TEXT, "--out", "text")
    unrolled = {"type": "Unrolled", "clip": True}
    config = edited("text/config.json", "configs/text-second.json", gradient=unrolled, epochs=1)
    g.run("text-second", "search", config, "--max-steps", "4", "--out", "text-second")
    chars = ("--level", "char", "--max-steps", "5")
    g.run("chars", "search", "text", "--data", "corpus", *TEXT, *chars, "--out", "chars")
    train = ("--recipe", "text-eval", "--hidden", "8", "--epochs", "3", "--batch-size", "8")
    g.run("train-text", "train", "text", *train, "--random-cells", "1")
    published = ("--data", "corpus", "--max-steps", "6", "--out", "published")
    g.run("train-published", "train", "DARTS_V2_recurrent", *train, *published)
    g.run("evaluate-text", "evaluate", "text")
    g.run("generate", "generate", "text", "--prompt", "the cell", "--tokens", "30", "--seed", "1")
    g.run("generate-sure", "generate", "text", "--tokens", "12", "--temperature", "0")


def laws(g: Golden) -> None:
    """Laws from a table of our own and from a generated one."""
    written("data.csv", data_table())
    g.run("law", "discover", "data.csv", "--target", "y", "--effort", "0.1", "--out", "law")
    g.run("law-again", "discover", "law/config.json", "--seed", "1", "--out", "law-again")
    decay = ("--example", "decay-counts", "--rows", "40", "--effort", "0.1", "--output", "counts")
    g.run("law-counts", "discover", *decay, "--out", "law-counts")
    plain = ("--example", "stevens", "--rows", "30", "--plain-darts")
    g.run("law-plain", "discover", *plain, "--out", "law-plain")


def pages(g: Golden) -> None:
    """Reports, pictures and exports of what was found."""
    runs = ("images", "images/train", "gumbel", "chain", "budget-ms", "target-ms", "sampled")
    runs += ("text", "text/train", "named", "imagenet")
    for run in runs:
        g.run(f"report-{run.replace('/', '-')}", "report", run)
    Path("drawn").mkdir()
    things = {"cell": "images", "chain": "chain", "recurrent": "text", "named": "DARTS_V2"}
    things |= {"named-rnn": "DARTS_V2_recurrent", "named-chain": "proxyless_mobile"}
    things |= {"file": "gumbel/genotype.json"}
    for name, what in things.items():
        g.run(f"draw-{name}-svg", "draw", what, "-o", f"drawn/{name}.svg")
        if name in ("cell", "chain", "recurrent"):
            g.run(f"draw-{name}-png", "draw", what, "-o", f"drawn/{name}.png")
    for run in ("images", "chain", "text", "f"):
        for suffix in ("onnx", "pt2") if run == "text" else ("onnx", "pt2", "py"):
            target = f"exported-{run}/model.{suffix}"
            Path(target).parent.mkdir(exist_ok=True)
            g.run(f"export-{run}-{suffix}", "export", run, "-o", target)


def resumed(g: Golden) -> None:
    """Runs that Ctrl-C stops somewhere after their first epoch, and that then go on."""
    images = edited("images/config.json", "configs/stopped.json", epochs=5)
    trained = edited("images/train/config.json", "configs/trained.json", epochs=25, random_cells=0)
    chain = edited("budget-ms/config.json", "configs/chain.json", epochs=12)
    shutil.copy("budget-ms/latency.json", "configs/latency.json")
    texts = edited("text/config.json", "configs/text.json", epochs=12)
    starts = {"stopped": ("search", images), "stopped-train": ("train", trained)}
    starts |= {"stopped-chain": ("search", chain), "stopped-text": ("search", texts)}
    for name, start in starts.items():
        soon = has_lines(f"{name}/metrics.jsonl", 1)
        g.run(f"{name}-1", *start, "--out", name, stop_when=soon)
        g.run(f"{name}-2", "resume", name)
    g.run("resume-finished", "resume", "images")


def words(g: Golden) -> None:
    """Help, listings, and the sentences of refusals."""
    commands = "search resume train evaluate generate draw report export latency discover recipes"
    for command in commands.split():
        g.run(f"help-{command}", command, "--help")
    g.run("help", "--help")
    for action in ("measure", "fit", "show"):
        g.run(f"help-latency-{action}", "latency", action, "--help")
    g.run("recipes", "recipes")
    refused = {
        "recipe": ("search", "digit"),
        "option": ("search", "digits", "--hidden", "3"),
        "unknown-option": ("search", "digits", "--epoch", "3"),
        "form": ("search", "digits", "--form", "add#linear"),
        "limits": ("search", "digits", "--target-ms", "1", "--budget-macs", "5"),
        "table": ("search", "proxyless-digits", "--latency", "none.json", "--budget-ms", "1"),
        "budget": ("search", "proxyless-digits", *CHAIN, "--budget-macs", "5", "--out", "refused"),
        "samples": ("search", "digits", "--reinforce", "0"),
        "unsampled": ("search", "digits", *IMAGES, "--reinforce", "2", "--out", "refused3"),
        "report-of-laws": ("report", "law"),
        "source-of-text": ("export", "text", "-o", "text.py"),
        "taken": ("search", "digits", *IMAGES, "--out", "images"),
        "capture": (
            "search",
            "digits",
            *IMAGES,
            "--capture",
            "--device",
            "cpu",
            "--out",
            "refused2",
        ),
        "data": ("search", "digits", "--data", "nowhere"),
        "name": ("train", "DARTS_V3"),
        "training": ("train", "DARTS_V2", "--recipe", "cifar-eval"),
        "kind": ("train", "DARTS_V2", "--recipe", "text-eval"),
        "kind-of-config": ("train", "images/config.json"),
        "folder": ("resume", "nowhere"),
        "untrained": ("evaluate", "second"),
        "images-generate": ("generate", "images"),
        "prompt": ("generate", "text", "--prompt", "zebra"),
        "suffix": ("export", "images", "-o", "model.doc"),
        "picture": ("draw", "images", "-o", "picture.doc"),
        "target": ("discover", "data.csv", "--target", "w"),
        "text-cost": ("search", "text", "--budget-params", "7"),
    }
    for name, command in refused.items():
        g.run(f"refused-{name}", *command)
