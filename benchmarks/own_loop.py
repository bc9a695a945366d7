"""What the machinery of a search costs beside a loop that one writes by hand.

    OMP_NUM_THREADS=1 python benchmarks/own_loop.py [--rounds N] [--only CASE] [--profile]

The same small network, the same batches, the same arithmetic: first-order DARTS in the plainest
PyTorch (alphas by Adam on the validation batch, weights by SGD on the train batch, clipped, with
the check that nothing is infinite), and `Search.step` on a module with `gradnas.Choice`s. The two
take turns, block by block, and which begins changes; counted is CPU time of the process. Before
that both must come to the same losses in float64.

Then the same module as a task through `gradnas.run_search`: the share of its CPU time that goes
into steps, into the evaluation after each epoch, into the run folder, into the health (with the
eigenvalues that are measured within steps), into the verdict, into the picture of the decision, and
into an `on_epoch` that does nothing.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas import runs
from gradnas.programs import searching
from gradnas.search.health import Health
from gradnas.search.sharpness import Sharpness
from gradnas.tasks.outcome import Outcome
from gradnas.tasks.your_task.held_out import HeldOut
from gradnas.tasks.your_task.search import TaskSearch

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A size of network and batch; `steps` make a block, and an epoch of the task."""

    about: str
    channels: int
    side: int
    batch: int
    choices: int
    steps: int
    epochs: int


CASES = {
    "short": Case("a short step", 16, 8, 12, 3, 20, 4),
    "long": Case("a long step", 24, 12, 20, 4, 6, 4),
    "many": Case("20 choices on tiny maps", 4, 4, 8, 20, 10, 4),
}


# ---- the network, twice --------------------------------------------------------------------------


def operations(channels: int) -> dict[str, nn.Module]:
    def conv(kernel: int) -> nn.Module:
        body = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        return nn.Sequential(body, nn.BatchNorm2d(channels))

    return {
        "conv3": conv(3),
        "conv5": conv(5),
        "pool": nn.MaxPool2d(3, 1, 1),
        "skip": nn.Identity(),
    }


class Mixed(nn.Module):
    """A choice as one writes it by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(operations(channels))
        self.alpha = nn.Parameter(torch.zeros(len(self.operations)))

    def forward(self, x: Tensor) -> Tensor:
        mix = self.alpha.softmax(-1)
        parts = [weight * op(x) for weight, op in zip(mix, self.operations.values(), strict=True)]
        return sum(parts[1:], parts[0])


class Net(nn.Module):
    """A stem, places with a choice each, a head."""

    def __init__(self, case: Case, place: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, case.channels, 3, padding=1)
        self.places = nn.ModuleList(place(case.channels) for _ in range(case.choices))
        self.head = nn.Linear(case.channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for place in self.places:
            x = F.relu(place(x))
        return self.head(x.mean((2, 3)))


def searched(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return Net(case, lambda channels: gradnas.Choice(operations(channels)))


def written_by_hand(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return Net(case, Mixed)


def batches(case: Case, number: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for _ in range(number):
        x = torch.randn(case.batch, 3, case.side, case.side, generator=draw)
        found.append((x, torch.randint(CLASSES, (case.batch,), generator=draw)))
    return found


# ---- the two loops -------------------------------------------------------------------------------

Pair = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


class ByHand:
    """The loop of somebody who knows what he wants."""

    def __init__(
        self, case: Case, search: gradnas.Search, dtype: torch.dtype = torch.float32
    ) -> None:
        self.net = written_by_hand(case).to(dtype)
        own = {}
        for name, p in self.net.named_parameters():
            if name.endswith(".alpha"):
                own[name.removesuffix(".alpha").replace(".", "/")] = p
        self.alphas = list(own.values())
        of_alphas = {id(alpha) for alpha in self.alphas}
        self.weights = [p for p in self.net.parameters() if id(p) not in of_alphas]
        with torch.no_grad():
            for name, alpha in own.items():
                alpha.copy_(search.alphas[name])
        adam, sgd = search.alpha_optimizer, search.weight_optimizer
        self.adam = type(adam)(self.alphas, **_settings(adam))
        self.sgd = type(sgd)(self.weights, **_settings(sgd))

    def step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(self.net(valid[0]), valid[1])
        grads = torch.autograd.grad(loss, self.alphas)
        if not torch.isfinite(torch.nn.utils.get_total_norm([*grads, loss.detach()])):
            raise FloatingPointError
        for alpha, grad in zip(self.alphas, grads, strict=True):
            alpha.grad = grad
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

        loss = F.cross_entropy(self.net(train[0]), train[1])
        grads = torch.autograd.grad(loss, self.weights)
        for weight, grad in zip(self.weights, grads, strict=True):
            weight.grad = grad
        size = nn.utils.clip_grad_norm_(self.weights, 5.0)
        if not torch.isfinite(size + loss.detach()):
            raise FloatingPointError
        self.sgd.step()
        self.sgd.zero_grad(set_to_none=True)
        return loss.detach()


def _settings(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {key: value for key, value in group.items() if key in optimizer.defaults}


class Ours:
    """The same through `Search.step`."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        self.search = gradnas.Search(searched(case).to(dtype), seed=0)

    def step(self, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> Tensor:
        report = self.search.step(
            lambda net: F.cross_entropy(net(train[0]), train[1]),
            lambda net: F.cross_entropy(net(valid[0]), valid[1]),
        )
        return report.train_loss


def block(loop: ByHand | Ours, pairs: list[Pair]) -> tuple[float, list[float]]:
    """CPU seconds of a block of steps, and its losses."""
    began = time.process_time()
    losses = [loop.step(*pair) for pair in pairs]
    seconds = time.process_time() - began
    return seconds, [loss.item() for loss in losses]


def check_same(case: Case) -> None:
    """In float64, where round-off does not grow: three steps give both loops the same losses."""
    ours = Ours(case, torch.float64)
    by_hand = ByHand(case, ours.search, torch.float64)
    data = [(x.double(), y) for x, y in batches(case, 6)]
    pairs = list(zip(data[:3], data[3:], strict=True))
    first, second = (block(loop, pairs)[1] for loop in (ours, by_hand))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)


def compared(case: Case, rounds: int) -> None:
    """Print how long a step takes in both loops."""
    ours = Ours(case)
    by_hand = ByHand(case, ours.search)
    data = batches(case, 2 * case.steps)
    pairs = list(zip(data[: case.steps], data[case.steps :], strict=True))
    for loop in (ours, by_hand):
        block(loop, pairs[:3])  # to warm up

    seconds: dict[str, list[float]] = {"ours": [], "by hand": []}
    loops = {"ours": ours, "by hand": by_hand}
    for number in range(rounds):
        names = list(loops) if number % 2 else list(reversed(loops))
        for name in names:
            seconds[name].append(block(loops[name], pairs)[0])
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["by hand"], strict=True)]
    ms = {name: 1e3 * statistics.median(own) / case.steps for name, own in seconds.items()}
    print(
        f"{case.about}: {ms['by hand']:.1f} ms by hand, {ms['ours']:.1f} ms Search.step; ratio "
        f"{statistics.median(ratios):.3f} (n = {rounds}, {min(ratios):.3f} to {max(ratios):.3f})"
    )


# ---- a whole run ---------------------------------------------------------------------------------


class Clock:
    """CPU seconds within named parts; of one within another the inner one counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._count()
        self._inside.append(name)
        try:
            yield
        finally:
            self._count()
            self._inside.pop()

    def _count(self) -> None:
        """What has passed since the last call belongs to the part that is entered."""
        now = time.process_time()
        if self._inside:
            name = self._inside[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def on(self, holder: Any, function: str, name: str) -> Iterator[None]:
        """Within: calls of a method, or of a function of a module, count as that part."""
        before = vars(holder)[function]
        plain = getattr(holder, function)

        def timed(*args: Any, **named: Any) -> Any:
            with self.part(name):
                return plain(*args, **named)

        setattr(holder, function, timed)
        try:
            yield
        finally:
            setattr(holder, function, before)


PARTS: tuple[tuple[Any, str, str], ...] = (
    (TaskSearch, "step", "steps"),
    (searching, "_write_found", "picture"),
    (Sharpness, "measure", "health"),  # within steps
    (runs.Run, "create", "run folder"),
    (runs.Keeper, "save", "run folder"),
    (HeldOut, "evaluate", "evaluation"),
    (Outcome, "verdict", "verdict"),
    (Health, "finish_epoch", "health"),
    (runs.Run, "append", "run folder"),
    (runs.Run, "save_tensors", "run folder"),
    (runs.Run, "save_checkpoint", "run folder"),
    (runs.Run, "save_results", "run folder"),
    (runs.Run, "set_status", "run folder"),
    (runs.Keeper, "tell", "on_epoch"),
)


def whole(case: Case, rounds: int) -> None:
    """Print where the time of a run goes, beside the steps of a loop by hand."""
    data = batches(case, 2 * case.steps)
    x, y = torch.cat([x for x, _ in data]), torch.cat([y for _, y in data])
    task = gradnas.Task(
        model=lambda: searched(case), train=(x, y), test=(x[:64], y[:64]), loss=F.cross_entropy
    )
    pairs = list(zip(data[: case.steps], data[case.steps :], strict=True))
    ratios: list[float] = []
    totals: list[float] = []
    shares: dict[str, list[float]] = {}
    for _ in range(rounds):
        by_hand = ByHand(case, Ours(case).search)
        block(by_hand, pairs[:5])
        hand = sum(block(by_hand, pairs)[0] for _ in range(case.epochs))
        clock = Clock()
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            for cls, method, name in PARTS:
                stack.enter_context(clock.on(cls, method, name))
            began = time.process_time()
            gradnas.run_search(
                task,
                out=Path(place) / "run",
                epochs=case.epochs,
                batch_size=case.batch,
                device="cpu",
                progress=False,
                on_epoch=lambda epoch: epoch.scalars,
            )
            total = time.process_time() - began
        steps = clock.seconds["steps"]
        ratios.append(steps / hand)
        totals.append(total)
        clock.seconds["the rest"] = total - sum(clock.seconds.values())
        for name, seconds in clock.seconds.items():
            shares.setdefault(name, []).append(seconds / steps)
    print(
        f"  run_search, {case.epochs} epochs of {case.steps} steps, "
        f"{statistics.median(totals):.2f} s: its steps take "
        f"{statistics.median(ratios):.3f} times those by hand "
        f"({min(ratios):.3f} to {max(ratios):.3f}); beside its steps (median; least to largest):"
    )
    for name, own in shares.items():
        if name != "steps":
            middle, least, most = statistics.median(own), min(own), max(own)
            print(f"    {name:12} {middle:7.1%}  ({least:.1%} to {most:.1%})")
    asked = ("run folder", "health", "verdict", "on_epoch")
    together = [sum(parts) for parts in zip(*(shares[name] for name in asked), strict=True)]
    searches = [sum(parts) for parts in zip(*shares.values(), strict=True)]  # in steps
    of_all = [own / whole for own, whole in zip(together, searches, strict=True)]
    print(
        f"    {' + '.join(asked)}: {statistics.median(together):.1%} of the steps, "
        f"{statistics.median(of_all):.1%} of the search"
    )


def profiled(case: Case) -> None:
    """Print what the steps spend their time in."""
    ours = Ours(case)
    data = batches(case, 2 * case.steps)
    pairs = list(zip(data[: case.steps], data[case.steps :], strict=True))
    block(ours, pairs[:5])
    profile = cProfile.Profile()
    profile.enable()
    block(ours, pairs)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--epochs", type=int, help="of a run; else as the case has them")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of these data there is nothing to decide
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"torch {torch.__version__}, 1 thread, load average {load:.1f}")
    for name, case in CASES.items():
        if options.epochs is not None:
            case = replace(case, epochs=options.epochs)
        if options.only in (None, name):
            if options.profile:
                profiled(case)
                continue
            check_same(case)
            compared(case, options.rounds)
            whole(case, options.rounds)


if __name__ == "__main__":
    main()
