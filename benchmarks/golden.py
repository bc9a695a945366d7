"""The golden program: one tiny run of every program of gradnas, its files and outputs hashed.

    python benchmarks/golden.py --save before.txt --keep before     # on the tree as it was
    python benchmarks/golden.py --compare before.txt --keep after   # after a change of form alone
    diff -r before after                                            # what it was that changed

Hashes depend on the processor and on the versions of torch and Python: compare on one machine, in
one environment. Commands go through `gradnas.cli.main` and the library through its public names, so
that files may move underneath. Every command runs in a fork of this process with one thread: as
isolated as a process of its own, without its start.

Left out, because they differ between two runs of the same tree:
  environment.json    commit, platform, command line
  timings.jsonl       seconds and measured memory: its epochs and names are hashed, not the values
  checkpoint.pt       hashed by content, without the length of timings.jsonl; that before the last,
                      of a run that was stopped, is of the moment at which it was stopped
  exported .py        hashed by constants, weights and logits: it quotes our own source
  --help              hashed by its words: its lines break where those of our source do
  .onnx, .pt2         hashed by graph and weights: both say where in the source a node came from
  stderr              without Python's warnings, which name files and lines, and the time left; of
                      the runs that are stopped and resumed, without the lines of epochs
  report.html         without its table of the environment; times and memory are replaced by #
  measured latencies  later runs use the measured table with a fixed time in the place of each
  --estimate          numbers are replaced by #, as is the time of a next step
Not run: several processes, torch.compile, CUDA and its graphs, loader processes, the hub.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
os.environ.update(COLUMNS="100", MPLBACKEND="agg", HF_HUB_OFFLINE="1")

import argparse
import contextlib
import hashlib
import importlib.util
import json
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tree this file is in

import torch

import gradnas
from gradnas.cli import main as gradnas_main

Hash = str


# ---- running -------------------------------------------------------------------------------------


def in_fork(
    name: str, work: Callable[[], int | None], stop_when: Callable[[], bool] | None = None
) -> int:
    """Run `work` in a fork; its outputs go to NAME.stdout and NAME.stderr; returns its exit code.

    Args:
        stop_when: asked every few milliseconds; Ctrl-C is sent as soon as it says so.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, stream in ((1, "stdout"), (2, "stderr")):
                file = os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                os.dup2(file, number)
            try:
                code = work() or 0
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else int(bool(stopped.code))
            except BaseException:  # noqa: BLE001  (a fork must never return into the caller)
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    while stop_when is not None:
        if stop_when():
            os.kill(child, signal.SIGINT)
            break
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Golden:
    """The runs of one call; the current folder is where they write."""

    def __init__(self) -> None:
        self.exits: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def run(self, name: str, *arguments: str, stop_when: Callable[[], bool] | None = None) -> None:
        """One command line; what it leaves outside NAME.* is found in the folder afterwards."""
        words = [str(word) for word in arguments]

        def work() -> int:
            sys.argv = ["gradnas", *words]
            return gradnas_main(words)

        self._done(name, work, stop_when)

    def call(self, name: str, work: Callable[[], None]) -> None:
        """A piece of Python, with the library's public names."""
        self._done(name, work, None)

    def _done(self, name: str, work: Any, stop_when: Callable[[], bool] | None) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        self.exits[name] = in_fork(name, work, stop_when)
        self.seconds[name] = time.monotonic() - began


def edited(source: str, target: str, **changes: Any) -> str:
    """A configuration with some entries replaced, as another file; `a__b` reaches into entries."""
    config = json.loads(Path(source).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        assert last in place, f"{source} has no {path}"
        place[last] = value
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps(config, indent=2) + "\n")
    return target


def written(name: str, text: str) -> str:
    """A text file in the current folder."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def has_lines(path: str, number: int) -> Callable[[], bool]:
    """Whether a file has so many lines already."""

    def asked() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return Path(path).read_bytes().count(b"\n") >= number
        return False

    return asked


def pseudo(seed: int) -> Iterable[int]:
    """Numbers from 0 to 2^31 - 1, the same everywhere and always."""
    state = seed
    while True:
        state = (1103515245 * state + 12345) % 2**31
        yield state >> 8


# ---- the programs --------------------------------------------------------------------------------

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


def fix_table(measured: str, target: str) -> None:
    """A measured table with a time that depends on the operation alone in the place of each."""
    table = json.loads(Path(measured).read_text())
    table["device"] = {"kind": "cpu", "name": "golden", "threads": 1}
    table["versions"] = {"gradnas": "golden"}
    for number, entry in enumerate(table["entries"].values()):
        entry |= {"ms": 0.05 + entry["macs"] * 5e-6 + 0.01 * (number % 7), "spread_ms": 0.01}
    Path(target).write_text(json.dumps(table, indent=2) + "\n")


def phone_table() -> str:
    """A table in the form that was released for phones."""
    lines = []
    numbers = iter(pseudo(3))
    for side, channels in ((32, 16), (16, 24), (8, 40)):
        for expand in (3, 6):
            for kernel in (3, 5, 7):
                shape = f"{side}x{side}x{channels}"
                key = f"expanded_conv-input:{shape}-output:{shape}"
                lines.append(f"{key}-expand:{expand}-kernel:{kernel}-stride:1-idskip:1:")
                mean = side * side * channels * expand * kernel * 1e-5 + next(numbers) % 100 * 1e-3
                lines.append(f"  {{count: 9, mean: {mean:.4f}, var: 0.01}}")
    text = "\n".join(lines) + "\n"
    return text.replace(":\n  {", ": {")


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


def folder_of_images(folder: str) -> None:
    """A few pictures of two classes, of different sizes."""
    import numpy as np
    from PIL import Image

    numbers = iter(pseudo(7))
    for split, count in (("train", 4), ("test", 2)):
        for label in ("cat", "dog"):
            where = Path(folder) / split / label
            where.mkdir(parents=True)
            for k in range(count):
                rows, columns = 40 + 7 * k, 52 - 5 * k
                values = [next(numbers) % 256 for _ in range(rows * columns * 3)]
                picture = np.array(values, dtype=np.uint8).reshape(rows, columns, 3)
                Image.fromarray(picture).save(where / f"{k}.png")


def text(g: Golden) -> None:
    """Recurrent cells: search, training, evaluation, writing."""
    words = ["the", "a", "cell", "gate", "finds", "loses", "edge", "node", "state"]
    words += ["word", "and", "or", "of", "in", "to", "by"]
    numbers = iter(pseudo(11))
    for split, lines in (("train", 260), ("valid", 60), ("test", 60)):
        sentences = (
            " ".join(words[next(numbers) % (4 + k % 13)] for _ in range(5 + k % 4))
            for k in range(lines)
        )
        written(f"corpus/{split}.txt", "\n".join(sentences) + "\n")
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
    numbers = iter(pseudo(5))
    rows = ["x,z,y"]
    for _ in range(60):
        x, z = (next(numbers) % 4000 / 1000 + 0.2 for _ in range(2))
        rows.append(f"{x},{z},{3 * x * z / (1.5 + x):.6f}")
    written("data.csv", "\n".join(rows) + "\n")
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


def library(g: Golden) -> None:
    """The library in Python, by its public names."""
    g.call("library-module", lambda: own_module())
    g.call("library-gradients", lambda: toy_gradients())
    g.call("library-laws", lambda: own_laws())
    g.call("library-spaces", lambda: spaces())


def own_module() -> None:
    """A search in a module with choices, with each relaxation and gradient."""
    from torch import nn

    torch.manual_seed(1)
    x, y = torch.randn(48, 1, 6, 6), torch.randint(3, (48,))
    batches = [(x[k : k + 12], y[k : k + 12]) for k in range(0, 48, 12)]

    def net() -> nn.Module:
        torch.manual_seed(2)
        first = {"conv3": nn.Conv2d(1, 4, 3, padding=1), "conv1": nn.Conv2d(1, 4, 1)}
        second = {"wide": nn.Conv2d(4, 4, 5, padding=2), "skip": nn.Identity()}
        second |= {"pool": nn.AvgPool2d(3, 1, 1)}
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        one, two = gradnas.Choice(first, name="first"), gradnas.Choice(second, name="second")
        return nn.Sequential(one, nn.BatchNorm2d(4), nn.ReLU(), two, *head)

    ways: dict[str, dict[str, Any]] = {
        "softmax": {"gradient": gradnas.Unrolled()},
        "exact": {"gradient": gradnas.Unrolled(mode="exact", steps=2)},
        "implicit": {"gradient": gradnas.Implicit(steps=3)},
        "gumbel": {"relaxation": gradnas.GumbelSoftmax(hard=False)},
        "sigmoid": {"relaxation": gradnas.Sigmoid()},
        "gates": {"relaxation": gradnas.BinaryGates()},
        "gates-full": {"relaxation": gradnas.BinaryGates(mode="full")},
        "reinforce": {
            "relaxation": gradnas.BinaryGates(),
            "gradient": gradnas.Reinforce(samples=3),
        },
        "budget": {"cost": gradnas.ExpectedCost(budget_macs=12000), "example": x[:1]},
    }
    for name, settings in ways.items():
        search = gradnas.Search(net(), epochs=2, seed=3, **settings)
        result = search.fit(batches[:2], batches[2:], loss=nn.functional.cross_entropy, epochs=2)
        result.save(f"library-module-{name}.json")
        network = result.derive()
        print(name, result.choices, search.steps, network)
        print("  alphas", tree_hash({k: a.detach() for k, a in search.supernet.alphas.items()}))
        print("  weights", tree_hash(network.state_dict()), "state", tree_hash(search.state_dict()))
        for better in search.results(3) if name == "budget" else ():
            print("  one of", better.choices, better.cost)
    print("macs", gradnas.macs(net()[0].operations["conv3"], x[:1]), gradnas.num_params(net()))


def toy_gradients() -> None:
    """Each architecture gradient on a problem with two tensors of weights."""
    torch.manual_seed(4)
    a = torch.randn(5, 4, dtype=torch.float64)
    b = torch.randn(5, dtype=torch.float64)
    names = {"w": torch.randn(4, dtype=torch.float64, requires_grad=True)}
    names["bias"] = torch.randn((), dtype=torch.float64, requires_grad=True)
    alphas = {"scale": torch.randn(4, dtype=torch.float64, requires_grad=True)}

    def train_loss(params: Any, alphas: Any) -> Any:
        mixed = a @ (params["w"] * alphas["scale"].exp()) + params["bias"]
        return ((mixed - b) ** 2).mean() + 0.1 * (params["w"] ** 2).sum()

    def valid_loss(params: Any, alphas: Any) -> Any:
        mixed = (a + 0.3) @ (params["w"] * alphas["scale"].exp()) + params["bias"]
        return ((mixed - b) ** 2).mean()

    inner = gradnas.SGDStep(lr=0.05, weight_decay=0.01)
    ways = (gradnas.FirstOrder(), gradnas.Unrolled(), gradnas.Unrolled(mode="exact"))
    ways += (gradnas.Unrolled(mode="exact", steps=3), gradnas.Implicit(steps=4))
    ways += (gradnas.Implicit(solver="cg", steps=4, damping=0.5),)
    for way in ways:
        found = way(train_loss, valid_loss, names, alphas, inner=inner)
        print(way, {name: value.tolist() for name, value in found.items()})


def own_laws() -> None:
    """The estimator of laws, in short and as a classifier."""
    import numpy as np

    numbers = iter(pseudo(9))
    x = np.array([[next(numbers) % 1000 / 250 + 0.1 for _ in range(2)] for _ in range(50)])
    y = 2.0 * np.exp(-0.7 * x[:, 0]) + x[:, 1]
    law = gradnas.EquationRegressor(random_state=0, effort=0.1).fit(x, y)
    print(law.equation_, law.predict(x[:5]).tolist(), law.score(x, y))
    classes = (x[:, 0] * x[:, 1] > 2).astype(int)
    sorter = gradnas.EquationClassifier(random_state=0, effort=0.1).fit(x, classes)
    print(sorter.predict_proba(x[:5]).tolist(), sorter.score(x, classes))


def spaces() -> None:
    """The networks of each space: names and values of what they start with, and what they give."""
    x = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    small = gradnas.ConvCell(channels=4, cells=3, nodes=2)
    stages = (gradnas.Stage(8, 2), gradnas.Stage(16, 1, 2))
    chain = gradnas.MBConvChain(stem_stride=1, stages=stages, last_width=32, image_size=16)
    for space, name in ((small, "cells"), (chain, "chain")):
        torch.manual_seed(6)
        supernet = space.supernet(in_channels=3, num_classes=5)
        print(name, tree_hash(supernet.state_dict()), *supernet.state_dict())
        supernet.train()
        draw = gradnas.Softmax().draw(dict(supernet.alphas.items()), {}, 0.0)
        if name == "cells":
            out = supernet(x, draw=draw)
            out.square().sum().backward()
            grads = {k: p.grad for k, p in supernet.named_parameters() if p.grad is not None}
            print(name, tree_hash(out.detach()), tree_hash(grads))
    for name in gradnas.Genotype.names():
        print(name, gradnas.Genotype.named(name))
    for name in gradnas.Chain.names():
        print(name, gradnas.Chain.named(name))


GROUPS: dict[str, Callable[[Golden], None]] = {
    "search-images": search_images,
    "search-chains": search_chains,
    "train-images": train_images,
    "text": text,
    "laws": laws,
    "pages": pages,
    "resume": resumed,
    "words": words,
    "library": library,
}
# what a group reads of the runs of others
NEEDS = {
    "train-images": ("search-images", "search-chains"),
    "pages": ("search-images", "search-chains", "train-images", "text", "laws"),
    "resume": ("search-images", "search-chains", "train-images", "text"),
    "words": ("search-images", "train-images", "text", "laws"),
}


# ---- hashing -------------------------------------------------------------------------------------


def short(data: bytes) -> Hash:
    """The first 16 digits of sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def canonical(value: Any, path: str = "") -> Iterable[bytes]:
    """Tensors and plain values as bytes, with their types, names and order."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{path} tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        yield f"{path} mapping {len(value)}".encode()
        for name, item in value.items():
            yield from canonical(item, f"{path}/{name!r}")
    elif isinstance(value, list | tuple):
        yield f"{path} {type(value).__name__} {len(value)}".encode()
        for number, item in enumerate(value):
            yield from canonical(item, f"{path}/{number}")
    else:
        assert value is None or isinstance(value, bool | int | float | str), (path, type(value))
        yield f"{path} {value!r}".encode()


def tree_hash(value: Any) -> Hash:
    """Of nested tensors and plain values."""
    return short(b"\n".join(canonical(value)))


def checkpoint_content(path: Path) -> bytes:
    """Saved tensors and values; of a checkpoint without the length of the timings."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if "lengths" in saved:
        del saved["lengths"]["timings.jsonl"]
    return b"\n".join(canonical(saved))


def safetensors_content(path: Path) -> bytes:
    """Names, types, shapes, bytes, and the words beside them."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return b"\n".join(canonical([file.metadata(), tensors]))


def onnx_content(path: Path) -> bytes:
    """The graph without the notes of where in the source each node came from."""
    import onnx

    model = onnx.load(str(path))
    parts: list[Any] = [model, model.graph, *model.functions]
    while parts:
        part = parts.pop()
        del part.metadata_props[:]
        part.doc_string = ""
        for name in ("value_info", "input", "output", "initializer", "node"):
            # inputs and outputs of functions and nodes are plain words
            parts += [item for item in getattr(part, name, ()) if not isinstance(item, str)]
        parts += [item.g for item in getattr(part, "attribute", ()) if item.HasField("g")]
    return model.SerializeToString(deterministic=True)


def program_content(path: Path) -> bytes:
    """The nodes of an exported torch program, its signature and its state."""
    program = torch.export.load(path)
    lines = [f"{node.op} {node.target} {node.args} {node.kwargs}" for node in program.graph.nodes]
    lines += [str(program.graph_signature), str(program.range_constraints)]
    return "\n".join(lines).encode() + b"\n".join(canonical(dict(program.state_dict)))


def source_content(path: Path) -> bytes:
    """What an exported source file says and computes: its constants, weights, and logits.

    Its classes are quoted from the library's own source, so their layout follows that of the
    library.
    """
    spec = importlib.util.spec_from_file_location(f"golden_{path.parent.name}", path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    constants = {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str | int | float | tuple | list)
    }
    network = module.load()
    side = module.IMAGE_SIZE
    numbers = torch.arange(2 * len(module.MEAN) * side * side, dtype=torch.float32)
    x_BCHW = torch.sin(numbers).reshape(2, len(module.MEAN), side, side)
    with torch.no_grad():
        logits_BK = network(module.normalise(x_BCHW))
    what = {
        "constants": constants,
        "weights": dict(network.state_dict()),
        "modules": [name for name, _ in network.named_modules()],
        "logits": logits_BK,
    }
    return b"\n".join(canonical(what))


def timings_content(path: Path) -> bytes:
    """Which times were noted."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # The same for a run that was stopped: it goes on inside the epoch.
    return "\n".join(f"{record.get('epoch')} {sorted(record)}" for record in lines).encode()


def table_content(path: Path) -> bytes:
    """A table of latencies that was measured: what, and not how long it took."""
    table = json.loads(path.read_text())
    for entry in table["entries"].values():
        entry |= {"ms": "#", "spread_ms": "#"}
    table["device"] = table["versions"] = "#"
    return json.dumps(table).encode()


DURATION = re.compile(rb"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?:ms|s|min|h|MiB|GiB|MB|GB)\b")
ENVIRONMENT = re.compile(rb"<h2>Environment</h2>.*?(?=<h2|</main>|</body>)", re.DOTALL)


def report_content(path: Path) -> bytes:
    """A report without its environment, and with # for times, waiting and memory."""
    waiting = re.compile(rb"(less than )?\d+% of the time")
    page = ENVIRONMENT.sub(b"", path.read_bytes())
    return DURATION.sub(b"#", waiting.sub(b"#", page))


TIMED = ("measure.stdout", "estimate.stdout")  # every number in them is a measurement
WARNING = re.compile(r"^\S+:\d+: \w*Warning: |^\[?[WIE]\d{4} |^\S*/site-packages/|\w+Warning: ")


def output_content(path: Path, name: str) -> bytes:
    """What a command said, without warnings of the interpreter, times left, and times taken."""
    lines, skipped = [], False
    for line in path.read_text().splitlines():
        if WARNING.search(line):
            skipped = True  # the line of source under it, indented, goes with it
            continue
        if skipped and line.startswith("  "):
            continue
        skipped = False
        line = re.sub(r"\d+:\d\d(:\d\d)? left", "# left", line)
        line = re.sub(r"\b\d+(\.\d+)? s;", "# s;", line)
        line = re.sub(r"^waiting for data: .*", "waiting for data: #", line)
        line = re.sub(r"\babout \d+ (s|min|h|days)\b", "about #", line)  # of the next step
        if path.name in TIMED:
            line = re.sub(r"\d+(\.\d+)?", "#", line)
        lines.append(line.rstrip())
    if name.startswith("help-"):
        # Where a sentence of the help breaks follows the lines of our source.
        words = "\n".join(lines).replace("│", " ").replace("─", " ").split()
        return " ".join(words).encode()
    if name.startswith("stopped"):
        # How far a run came before Ctrl-C reached it depends on the moment.
        lines = [line for line in lines if not re.match(r"\w+: epoch", line)]
    return "\n".join(lines).encode()


def content(path: Path, name: str) -> bytes | None:
    """The part of a file that must stay the same; None for a file that is left out."""
    if path.name == "environment.json":
        return None
    if name.startswith("exported-") and path.suffix == ".py":
        return source_content(path)
    if name == "m.json":
        return table_content(path)
    if path.suffix in (".stdout", ".stderr"):
        return output_content(path, name)
    by_name = {"timings.jsonl": timings_content, "report.html": report_content}
    by_suffix: dict[str, Callable[[Path], bytes]] = {
        ".pt": checkpoint_content,
        ".safetensors": safetensors_content,
        ".onnx": onnx_content,
        ".pt2": program_content,
    }
    if name.startswith("stopped") and path.name == "checkpoint.previous.pt":
        return None  # of the moment it was stopped at
    reader = by_name.get(path.name) or by_suffix.get(path.suffix) or Path.read_bytes
    return reader(path)


INPUTS = ("configs/", "corpus/", "pictures/", "data.csv", "phone.yaml")  # written by this program


def hashes(golden: Golden) -> dict[str, Hash]:
    """Name of a file or an exit code -> hash, of all that lies in the current folder."""
    found = {f"{name}.exit": str(code) for name, code in golden.exits.items()}
    for path in sorted(Path().rglob("*")):
        name = path.as_posix()
        if not path.is_file() or name.startswith(INPUTS):
            continue
        if (data := content(path, name)) is not None:
            found[name] = short(data)
    return found


# ---- the program ---------------------------------------------------------------------------------


def wanted(only: Iterable[str]) -> list[str]:
    """The groups asked for and those they read from, in order."""
    asked = set(only) or set(GROUPS)
    for group in tuple(asked):
        asked |= set(NEEDS.get(group, ()))
        for other in NEEDS.get(group, ()):
            asked |= set(NEEDS.get(other, ()))
    return [group for group in GROUPS if group in asked]


def preload() -> None:
    """Slow libraries, once, so that no fork has to load them again."""
    import matplotlib.figure
    import networkx
    import onnx
    import onnxruntime
    import onnxscript
    import pandas
    import sklearn.datasets
    import sympy

    loaded = (matplotlib, networkx, onnx, onnxruntime, onnxscript, pandas, sklearn, sympy)
    assert all(loaded)


def main() -> int:
    """Run, hash, and print or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", type=Path, help="write the lines to this file")
    parser.add_argument("--compare", type=Path, help="print only what differs from this file")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=[], metavar="NAME")
    parser.add_argument("--keep", type=Path, help="keep what the runs write in this new folder")
    parser.add_argument("--times", action="store_true", help="seconds of each run, on stderr")
    options = parser.parse_args()
    save, compare = (p.resolve() if p else None for p in (options.save, options.compare))
    torch.set_num_threads(1)
    preload()
    began = time.monotonic()
    golden = Golden()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error(f"{folder} is not empty")
        os.chdir(folder)
        groups = wanted(options.only)
        for group in groups:
            GROUPS[group](golden)
        found = hashes(golden)
        os.chdir("/")
    lines = [f"{name}  {found[name]}" for name in sorted(found)]
    lines.append(f"all  {short(chr(10).join(lines).encode())}")
    if options.times:
        for name, seconds in sorted(golden.seconds.items(), key=lambda item: -item[1]):
            print(f"{seconds:7.2f} s  {name}", file=sys.stderr)
    print(f"{len(lines)} lines in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if save is not None:
        save.write_text("\n".join(lines) + "\n")
    if compare is None:
        print("\n".join(lines))
        return 0
    return compared(compare.read_text().splitlines(), lines, complete=len(groups) == len(GROUPS))


def compared(before: Iterable[str], after: Iterable[str], *, complete: bool) -> int:
    """Print what differs; 1 where anything does. What was not run is passed over."""
    old, new = (dict(line.split("  ") for line in lines) for lines in (before, after))
    if not complete:
        old = {name: value for name, value in old.items() if name in new}
        old.pop("all", None)
        new.pop("all", None)
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    for name in changed:
        print(f"{name}  {old.get(name, 'not there')} -> {new.get(name, 'not there')}")
    print(
        f"{len(changed)} of {len(new)} lines differ"
        if changed
        else f"{len(new)} lines, all as before"
    )
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
