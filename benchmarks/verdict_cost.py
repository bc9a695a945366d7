"""What the verdict of a search costs: its share of the CPU time of the search before it.

    python benchmarks/verdict_cost.py [--epochs N] [--only digits|resnet] [--unbounded]

On the digits search of the recipe `digits`, and on a ResNet of transformers whose blocks are chosen
(`gradnas.replace`), as a task of one's own on the digits. The bound counts examples and not
seconds, so that the verdict is the same on every machine; here it is measured in seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas.data import DataConfig
from gradnas.families.recipes import search_recipe
from gradnas.programs.searching import run_search, start_search
from gradnas.search import verdict_limits
from gradnas.tasks.search import SearchTask


def timed(run: Any) -> tuple[float, float, dict[str, Any]]:
    """CPU seconds of a search without its verdict, and of the verdict; and its results."""
    seconds = 0.0
    plain = SearchTask.verdict

    def verdict(self: SearchTask, *args: Any) -> Any:
        nonlocal seconds
        began = time.process_time()
        try:
            return plain(self, *args)
        finally:
            seconds += time.process_time() - began

    SearchTask.verdict = verdict  # type: ignore[method-assign]
    began = time.process_time()
    try:
        results = run()
    finally:
        SearchTask.verdict = plain  # type: ignore[method-assign]
    return time.process_time() - began - seconds, seconds, results


def digits(epochs: int | None, folder: Path) -> dict[str, Any]:
    config = search_recipe("digits")
    if epochs is not None:
        config = replace(config, epochs=epochs)
    device = torch.device("cpu")
    data = config.load()
    run = start_search(config, folder, data, device)
    return run_search(config, run, data, device, progress=False)


class Digits(nn.Module):
    """The logits of a ResNet of transformers."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        config = transformers.ResNetConfig(
            num_channels=1,
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[2, 2, 2],
            layer_type="basic",
            num_labels=10,
        )
        self.model = transformers.ResNetForImageClassification(config)
        block = transformers.models.resnet.modeling_resnet.ResNetBasicLayer
        gradnas.replace(self.model, block, _block)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model(F.interpolate(x_BCHW, scale_factor=4.0)).logits


def _block(old: Any) -> dict[str, nn.Module] | None:
    if not isinstance(old.shortcut, nn.Identity):
        return None
    width = old.layer[0].convolution.in_channels
    wide = nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    )
    return {"keep": old, "conv5": wide, "skip": gradnas.Skip()}


def resnet(epochs: int | None, folder: Path) -> dict[str, Any]:
    data = DataConfig(source="digits").load()
    everything = data.train.batches(10**5, shuffle=False, device=torch.device("cpu"))
    x_BCHW, y_B = next(iter(everything.epoch(0)))
    task = gradnas.Task(
        model=Digits,
        train=(x_BCHW, y_B),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
    found = gradnas.run_search(task, out=folder, epochs=epochs or 10, progress=False)
    return getattr(found, "results", found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--unbounded", action="store_true", help="measure all candidates")
    parser.add_argument("--asked", action="store_true", help="as with candidates=8: up to a tenth")
    parser.add_argument("--only", choices=("digits", "resnet"), default=None)
    settings = parser.parse_args()
    if settings.unbounded:
        verdict_limits.SHARE = verdict_limits.ASKED = 1e9
    if settings.asked:
        verdict_limits.SHARE = verdict_limits.ASKED
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, search in (("digits", digits), ("resnet", resnet)):
        if settings.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            searching, judging, results = timed(lambda s=search, f=folder: s(settings.epochs, f))
        verdict = results.get("verdict", {})
        examples = verdict.get("examples")
        evaluations = len(verdict.get("candidates", [])) + len(verdict.get("random", []))
        print(
            f"{name}: search {searching:.1f} s, verdict {judging:.1f} s "
            f"({judging / searching:.1%}) for {evaluations} architectures on {examples} examples"
        )
        print(verdict.get("sentence"), results.get("no_verdict", ""))


if __name__ == "__main__":
    main()
