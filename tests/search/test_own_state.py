"""What a network keeps in plain attributes: each batch moves it once, as in plain training."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import Choice, FirstOrder, Search, Unrolled, WeightOptimizer
from gradnas.spaces.your_module import ModuleSupernet

LR = 0.1
N = 5


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Choice({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh())})
        self.head = nn.Linear(4, 3)


class Counter(Base):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body(x)) / self.calls


class Hidden(Base):
    state = None

    def forward(self, x: Tensor) -> Tensor:
        before = torch.zeros(N, 4) if self.state is None else self.state
        z = self.body(x) + 0.5 * before
        self.state = z.detach()
        return self.head(z)


class Queue(Base):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.totals = {"all": [0.0]}

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        self.seen.append(z.detach().mean(0))
        self.totals["all"].append(len(self.seen))
        return self.head(z + sum(self.seen) + 0.01 * sum(self.totals["all"]))


class Teacher(Base):
    """Follows the head within forward, as momentum encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = nn.Linear(4, 3)
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for slow, quick in zip(self.teacher.parameters(), self.head.parameters(), strict=True):
            slow.data.mul_(0.9).add_(quick.data, alpha=0.1)
        z = self.body(x)
        return self.head(z) + self.teacher(z)


class PythonNumbers(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) * random.random())


class NumpyNumbers(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) * float(np.random.rand()))


class OwnNumbers(Base):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = torch.Generator().manual_seed(0)
        self.others = [np.random.default_rng(0), random.Random(0), np.random.RandomState(0)]

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rand((), generator=self.numbers)
        for own in self.others:
            scale = scale + (own.rand() if hasattr(own, "rand") else own.random())
        return self.head(self.body(x) * scale)


KINDS = [Counter, Hidden, Queue, Teacher, PythonNumbers, NumpyNumbers, OwnNumbers]


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(N, 4, generator=generator), torch.arange(N) % 3


def loss_on(number: int):
    x, y = batch(number)
    return lambda net: F.cross_entropy(net(x), y)


@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()], ids=["first", "difference"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_batch_moves_it_once(kind, gradient):
    torch.manual_seed(0)
    net = kind()
    twin = ModuleSupernet(copy.deepcopy(net))
    plain = WeightOptimizer(lr=LR, lr_end=LR, momentum=0.0, weight_decay=0.0, clip_norm=None)
    search = Search(net, gradient=gradient, weights=plain, seed=0)
    for number in range(5):
        random.seed(number)
        np.random.seed(number)
        search.step(loss_on(number), loss_on(10 + number))

        random.seed(number)
        np.random.seed(number)
        draw = search.passes.mixture()
        weights = [p for p in twin.net.parameters() if p.requires_grad]
        loss = loss_on(number)(lambda x, draw=draw: twin(x, draw=draw))
        for p, grad in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            p.data.sub_(LR * grad)
        for name, tensor in twin.net.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], tensor, msg=name)
    if kind is Counter:
        assert net.calls == 5
    if kind is Queue:
        assert len(net.seen) == 5 and net.totals["all"] == [0.0, 1, 2, 3, 4, 5]


def test_passes_that_are_compared_begin_with_the_same_state():
    """A finite difference would divide what a counter makes of the loss by its epsilon."""
    found = []
    for gradient in (Unrolled(), Unrolled("exact")):
        torch.manual_seed(0)
        net = Counter()
        search = Search(net.double(), gradient=gradient, seed=0)

        def loss(net, number=0):
            x, y = batch(number)
            return F.cross_entropy(net(x.double()), y)

        inner = search.weight_step.inner_step(gradient)
        grads, _ = search.alpha_step.gradient(
            loss, lambda net: loss(net, 1), search.passes.noise(1), inner
        )
        found.append(grads["body"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-8)


class Written(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        self.mean.mul_(0.9).add_(z.detach().mean(0))
        return self.head(z - self.mean)


def test_a_tensor_that_is_no_buffer_is_refused_where_it_is_written():
    net = Written()
    with pytest.raises(ValueError, match=r"Written keeps a tensor .* 'mean' .*register_buffer"):
        Search(net, seed=0).step(loss_on(0), loss_on(1))
    assert torch.equal(net.mean, torch.zeros(4))


class Hooked(Base):
    """Reads what a hook has written into it, by a closure and by a default."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}
        if way == "closure":
            self.body.register_forward_hook(
                lambda module, inputs, output: self.seen.update(body=output)
            )
        elif way == "default":

            def keep(module, inputs, output, seen=self.seen):
                seen["body"] = output

            self.body.register_forward_hook(keep)
        else:
            self.forward = lambda x: self.head(self.body(x)) + self.last(x)

    def last(self, x: Tensor) -> Tensor:
        return self.head.bias

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        return self.head(z + self.seen["body"])


@pytest.mark.parametrize("way", ["closure", "default", "forward"])
def test_functions_with_a_closure_belong_to_the_derived_network(way):
    torch.manual_seed(0)
    search = Search(Hooked(way), seed=0)
    for number in range(2):
        search.step(loss_on(number), loss_on(10 + number))
    result = search.result()
    network = result.derive()
    x, _ = batch(3)
    with torch.no_grad():
        mixture = search.supernet(x, draw=search.supernet.one_hot_draw(result.decision))
        search.supernet(batch(4)[0])  # which the derived network must not see
        torch.testing.assert_close(network(x), mixture)
    assert not any(isinstance(module, Choice) for module in network.modules())


def test_sparse_gradients_are_refused_by_the_layer():
    net = nn.Sequential(nn.EmbeddingBag(5, 4, sparse=True), Base().body)
    with pytest.raises(ValueError, match=r"'0' \(EmbeddingBag\) has sparse=True"):
        Search(net)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_goes_on_is_the_same(kind, tmp_path):
    def begun() -> Search:
        torch.manual_seed(0)
        return Search(kind(), seed=0)

    random.seed(0)
    np.random.seed(0)
    whole = begun()
    for number in range(6):
        if number == 4:
            torch.save(whole.state_dict(), tmp_path / "state.pt")
        whole.step(loss_on(number), loss_on(10 + number))
    random.seed(7)
    np.random.seed(7)
    again = begun()
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for number in (4, 5):
        again.step(loss_on(number), loss_on(10 + number))
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(again.supernet.state_dict()[name], tensor), name


class LateTeacher(nn.Module):
    """A teacher that begins to follow its student in forward after some batches."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.student = nn.Linear(4, 4)
        self.teacher = nn.Linear(4, 4).requires_grad_(False)
        self.choice = Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}, name="c")
        self.start = start
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        if self.batches > self.start:
            with torch.no_grad():
                self.teacher.bias.add_(1.0)
        return self.choice(self.student(x)) + 0.0 * self.teacher(x)


@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()])
@pytest.mark.parametrize("start", [0, 2, 6])
def test_what_changes_frozen_weights_late_is_refused(start, gradient):
    net = LateTeacher(start)
    bias = net.teacher.bias.clone()
    search = Search(net, gradient=gradient)
    x = torch.randn(4, 4)

    def loss(own):
        return own(x).square().mean()

    for step in range(8):
        if step < 6 or start < 6:
            search.step(loss, loss)
        else:
            with pytest.raises(ValueError, match=r"forward changes the weight teacher\.bias"):
                search.step(loss, loss)
            return
    torch.testing.assert_close(net.teacher.bias, bias + 8 - start)


class LateQueue(Base):
    """A tensor that is no buffer: written with what it holds, or after some batches with more."""

    def __init__(self, start: int | None) -> None:
        super().__init__()
        self.queue = torch.zeros(4)
        self.start = start
        self.batches = 0

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        self.queue.clamp_(min=0.0)
        if self.start is not None and self.batches > self.start:
            self.queue[0] = 1.0
        return self.head(self.body(x) + self.queue)


def test_a_tensor_that_is_written_with_what_it_holds_is_left():
    scratch = Search(LateQueue(None), seed=0)
    for step in range(8):
        scratch.step(loss_on(step), loss_on(step + 1))


class LateWithoutClamp(LateQueue):
    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        if self.start is not None and self.batches > self.start:
            self.queue[0] = 1.0
        return self.head(self.body(x) + self.queue)


def test_a_queue_that_is_filled_late_is_refused():
    search = Search(LateWithoutClamp(6), seed=0)
    with pytest.raises(ValueError, match=r"keeps a tensor .* 'queue' .*register_buffer"):
        for step in range(8):
            search.step(loss_on(step), loss_on(step + 1))
    assert search.steps == 6
