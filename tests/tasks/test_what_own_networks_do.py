"""Networks and losses of one's own that do more than multiply: differentiate, draw, remember."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import runs
from gradnas.cli import main
from gradnas.programs.your_task import run_search, run_training
from gradnas.search.evaluating import Evaluating
from gradnas.tasks.your_task.calls import example_call, measured
from gradnas.tasks.your_task.measures import Score

CPU = torch.device("cpu")
T = torch.rand(40, 1, generator=torch.Generator().manual_seed(0))


def layers(kind):
    return nn.Sequential(nn.Linear(1, 6), kind(), nn.Linear(6, 1))


class Curve(nn.Module):
    def __init__(self):
        super().__init__()
        operations = {"tanh": layers(nn.Tanh), "softplus": layers(nn.Softplus)}
        self.body = gradnas.Choice(operations, name="body")

    def forward(self, t):
        return self.body(t)


def residual(net, batch):
    """Of du/dt = -u, as networks for differential equations learn it."""
    t = batch[0].clone().requires_grad_()
    u = net(t)
    (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
    return (slope + u).square().mean()


def of_equation():
    measures = {"residual": gradnas.lower(residual)}
    return gradnas.Task(
        model=Curve, train=(T[:30],), test=(T[30:],), loss=residual, measures=measures
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "gradient", [gradnas.FirstOrder(), gradnas.Unrolled(), gradnas.Reinforce()]
)
def test_a_loss_that_differentiates_by_the_input_is_also_measured(gradient, tmp_path):
    task = of_equation()
    relaxation = (
        gradnas.GumbelSoftmax() if isinstance(gradient, gradnas.Reinforce) else gradnas.Softmax()
    )
    settings = {"epochs": 1, "batch_size": 5, "device": "cpu", "progress": False}
    found = run_search(
        task, out=tmp_path / "a", gradient=gradient, relaxation=relaxation, candidates=2, **settings
    )
    assert found.results["derived_valid_residual"] == found.results["derived_valid_loss"]
    assert "no_verdict" not in found.results

    network = found.result.derive()
    values = measured(task, network.eval(), [(T[:20],), (T[20:],)], "fp32", CPU)
    assert values["residual"] == pytest.approx(residual(network, (T,)).item(), rel=1e-5)
    assert not example_call(task).inputs[0].requires_grad


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0563, "0.0563"), (0.2191, "0.22"), (0.00123, "0.00123"), (12.345, "12.35"), (0.0, "0.00")],
)
def test_a_small_measure_is_told_with_three_figures(value, text):
    assert Score("mae", gradnas.lower(error)).measure.text(value) == text


def test_what_fails_for_another_reason_is_not_tried_again():
    calls = []

    def failing():
        calls.append(1)
        raise RuntimeError("shapes do not fit")

    evaluating = Evaluating()
    with torch.no_grad(), pytest.raises(RuntimeError, match="do not fit"):
        evaluating(failing)
    assert len(calls) == 1 and not evaluating.needs_graph


def test_a_function_that_needs_a_graph_draws_the_same_numbers_as_if_it_ran_once():
    x = torch.ones(3)

    def penalty():
        drawn = (x + torch.rand(3)).requires_grad_()
        return torch.autograd.grad((drawn**2).sum(), drawn, create_graph=True)[0].sum()

    torch.manual_seed(0)
    wanted = penalty()
    torch.manual_seed(0)
    evaluating = Evaluating()
    with torch.no_grad():
        found = evaluating(penalty)
    assert evaluating.needs_graph and not found.requires_grad
    assert torch.equal(found, wanted)


class Projected(nn.Module):
    """Random features that no file of weights holds, and a sample in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("directions", torch.randn(1, 6), persistent=False)
        operations = {"one": nn.Linear(6, 6), "none": nn.Identity()}
        self.body = gradnas.Choice(operations, name="body")
        self.head = nn.Linear(6, 1)

    def forward(self, t):
        hidden = self.body(torch.sin(t @ self.directions))
        return self.head(hidden + 0.1 * torch.randn_like(hidden))


FILE = """
from test_what_own_networks_do import sampled as task
"""


def error(outputs, target):
    return 1e4 * F.mse_loss(outputs, target)  # which is told with many digits


def sampled():
    data = {"train": (T[:30], T[:30] ** 2), "test": (T[30:], T[30:] ** 2)}
    measures = {"error": gradnas.lower(error)}
    return gradnas.Task(model=Projected, loss=F.mse_loss, measures=measures, **data)


@pytest.mark.slow
def test_evaluate_tells_what_the_training_told(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(__file__.rpartition("/")[0])
    (tmp_path / "mine.py").write_text(FILE)
    settings = {"epochs": 1, "device": "cpu", "progress": False}
    trained = run_training(sampled(), {"body": "one"}, out=tmp_path / "a", **settings)
    known = trained.results["test_error"]
    weights = runs.Run(tmp_path / "a").load_tensors(runs.WEIGHTS)
    assert "directions" not in weights
    torch.manual_seed(5)  # as in another process
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "a"), "--task", str(tmp_path / "mine.py")]) == 0
    assert f"test error {known:.2f} " in capsys.readouterr().out


class Detector(nn.Module):
    """As those of torchvision: losses in train mode, predictions in eval mode; lists in both."""

    def __init__(self):
        super().__init__()
        operations = {"wide": layers(nn.Tanh), "relu": layers(nn.ReLU)}
        self.body = gradnas.Choice(operations, name="body")

    def forward(self, points, targets=None):
        found = self.body(torch.stack(list(points))).squeeze(1)
        if not self.training:
            return [{"height": height} for height in found]
        heights = torch.stack([target["height"] for target in targets])
        return {"loss_height": F.mse_loss(found, heights), "loss_size": found.square().mean()}


def detector_loss(net, batch):
    losses = net(*batch)
    return sum(losses.values()) if net.training else None


def off(net, batch):
    points, targets = batch
    pairs = zip(net(points), targets, strict=True)
    return sum(abs(float(p["height"] - t["height"])) for p, t in pairs) / len(points)


MEASURES = {"off": gradnas.lower(off)}


def of_detector(loss=detector_loss, measures=MEASURES):
    examples = [(t, {"height": 2.0 * t[0]}) for t in T]
    return gradnas.Task(
        model=Detector,
        train=examples[:30],
        test=examples[30:],
        collate=lambda some: tuple(zip(*some, strict=True)),
        loss=loss,
        measures=measures,
    )


SMALL = {"epochs": 1, "batch_size": 5, "device": "cpu", "progress": False}


@pytest.mark.slow
def test_a_model_may_give_losses_in_train_mode_alone(tmp_path):
    task = of_detector()
    found = run_search(task, out=tmp_path / "a", candidates=2, **SMALL)
    assert "valid_off" in found.results and "valid_loss" not in found.results
    assert found.results["verdict"]["measure"]["name"] == "off"

    trained = run_training(task, found, random=0, **SMALL)
    assert "test_loss" not in trained.results
    network = trained.network.eval()
    points = T[30:]
    heights = torch.stack([one["height"] for one in network(points)])
    assert trained.results["test_off"] == pytest.approx(
        (heights - 2.0 * points[:, 0]).abs().mean().item(), rel=1e-5
    )


def test_a_loss_that_fails_in_eval_mode_says_so_in_short(tmp_path):
    def always(net, batch):
        return sum(net(*batch).values())

    with pytest.raises(ValueError, match="where the network is in eval mode") as refused:
        run_search(of_detector(always), out=tmp_path / "a", **SMALL)
    # Every point of a batch has its own tensor.
    assert "a batch of 5 times (1,), 5 times {height: ()}" in str(refused.value)
    with pytest.raises(ValueError, match="without measures it decides"):
        run_search(of_detector(measures={}), out=tmp_path / "a", **SMALL)
    assert not (tmp_path / "a").exists()
