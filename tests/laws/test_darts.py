"""DARTS for equations: what is trained, what is derived, and that it goes on where it stopped."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

import gradnas
from gradnas.laws import darts_training
from gradnas.laws.darts_training import DARTSTraining

Regressor = gradnas.DARTSRegressor
WORDS = ("none", "linear", "linear_exp", "add")
x = np.random.default_rng(0).uniform(0.5, 3.0, (60, 2))
y = 2 * x[:, 0] + np.exp(-x[:, 1])


def small(**settings):
    values = {"primitives": WORDS, "epochs": 4, "random_state": 0, **settings}
    return Regressor(**values)


def test_both_levels_learn():
    law = small(epochs=25).fit(x, y)
    assert law.history_["edges"].shape == (25, 1, 5, 4)
    assert law.history_["loss"].shape == (25, 1)
    assert law.history_["loss"][-1, 0] < 0.5 * law.history_["loss"][0, 0]
    moved = np.abs(law.history_["edges"][-1] - law.history_["edges"][0])
    assert moved.max() > 0.02
    assert law.score(x, y) > 0.8


@pytest.mark.parametrize("fair", [False, True])
def test_the_step_of_the_alphas_is_adam_on_their_gradient(fair):
    settings = small(fair=fair, batch_size=None, alpha_lr=3e-3, clip_norm=None, fewer_params=1e-2)
    settings = settings._darts_settings(2, "real", 1)
    tensors = [torch.tensor(x), torch.tensor(y), torch.ones(60, dtype=torch.float64)]
    training = DARTSTraining(settings, *tensors)
    before = training.alphas["edges"].detach().clone()
    alphas = {name: alpha.detach().clone() for name, alpha in training.alphas.items()}
    leaf = alphas["edges"].requires_grad_()
    rows = torch.arange(60)
    loss = training.losses(training.params, alphas, rows).sum()
    if fair:
        loss = loss - ((torch.sigmoid(leaf) - 0.5) ** 2).mean()
    gradient = torch.autograd.grad(loss, leaf)[0] + 1e-4 * before  # and the decay
    training._alpha_step(0, 0.025)
    # The first step of Adam is its learning rate by the sign; then constants are charged for.
    charge = 3e-3 * 1e-2 * torch.tensor([0.0, 3.0, 3.0, 1.0])
    expected = before - 3e-3 * torch.sign(gradient) - charge
    assert torch.allclose(training.alphas["edges"].detach(), expected, atol=1e-5)


def test_second_order_sees_the_step_of_the_constants():
    first = small(order=1).fit(x, y).history_["edges"]
    second = small(order=2).fit(x, y).history_["edges"]
    assert np.abs(first - second).max() > 1e-6
    assert np.isfinite(second).all()


def test_the_output_is_the_plain_sum_unless_it_is_trained():
    law = small().fit(x, y)
    formula = law.laws_[0].front[law.laws_[0].best].formula
    assert set(formula.weights) == {1.0}
    assert formula.bias == 0.0
    trained = small(output_weights=True, output_bias=True).fit(x, y)
    formula = trained.laws_[0].front[trained.laws_[0].best].formula
    assert set(formula.weights) != {1.0}
    assert formula.bias != 0.0


def test_a_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    settings = {"restarts": 2, "batch_size": 16, "epochs": 6}
    whole = small(**settings).fit(x, y)
    path = tmp_path / "search.pt"
    train_epoch = DARTSTraining._train_epoch

    def stopped(self):
        if self.epoch == 4:
            raise KeyboardInterrupt
        train_epoch(self)

    monkeypatch.setattr(darts_training.DARTSTraining, "_train_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        small(**settings, checkpoint=path, checkpoint_every=3).fit(x, y)
    monkeypatch.setattr(darts_training.DARTSTraining, "_train_epoch", train_epoch)
    resumed = small(**settings, checkpoint=path, checkpoint_every=3).fit(x, y)
    for name, values in whole.history_.items():
        assert (resumed.history_[name] == values).all()
    assert resumed.text(None) == whole.text(None)
    with pytest.raises(ValueError, match="other data or settings"):
        small(**settings, checkpoint=path).fit(x, y + 1)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no checkpoint"):
        small(**settings, checkpoint=path).fit(x, y)


def test_a_found_graph_is_fitted_to_other_rows():
    law = small(epochs=10).fit(x, y)
    other = law.refit(x, 2 * y)
    assert other.score(x, 2 * y) > 0.8
    assert other.laws_[0].front[0].formula.bias == 0.0


@pytest.mark.parametrize("refine", ["least_squares", "sgd", "none"])
def test_a_graph_of_plain_operations_has_no_constants_to_fit(refine):
    target = x[:, 0] + x[:, 1]
    law = small(primitives=["add"], nodes=1, refine=refine).fit(x, target)
    assert law.text() == "y = x1 + x2"
    assert law.score(x, target) == 1.0
    assert law.refit(x, 2 * target).text() == "y = x1 + x2"


def test_classes_have_one_softmax():
    labels = np.array(["low", "middle", "high"])[np.digitize(x[:, 0], [1.3, 2.2])]
    law = gradnas.DARTSClassifier(primitives=WORDS, epochs=5, random_state=0).fit(x, labels)
    p_NC = law.predict_proba(x)
    assert p_NC.sum(axis=1) == pytest.approx(np.ones(60))
    assert (law.predict(x) == labels).mean() > 0.8
    values_NC = np.column_stack([laws.front[0].linear(x) for laws in law.laws_])
    powers_NC = np.exp(values_NC - values_NC.max(axis=1, keepdims=True))
    assert p_NC == pytest.approx(powers_NC / powers_NC.sum(axis=1, keepdims=True))


def test_a_restart_that_is_not_finite_is_left_out():
    law = small(param_lr=1e30, clip_norm=None, epochs=2, restarts=2, refine="none").fit(x, y)
    assert any("restarts stopped being finite" in note for note in law.notes_)


def test_pictures(tmp_path):
    law = small(kinds=("sum", "product", "ratio"), restarts=2, sampling="sample").fit(x, y)
    for draw in (law.plot_history, law.draw_mixture, law.draw):
        assert draw(path=tmp_path / "picture.svg").exists()
    edges = law.mixture_()
    assert [(edge["from"], edge["to"]) for edge in edges[-1:]] == [("node 1", "node 2")]
    assert sum(edges[0]["probabilities"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"order": 3},
        {"epochs": 0},
        {"batch_size": 0},
        {"validation": 1.0},
        {"sampling": "best"},
        {"refine": "exactly"},
        {"primitives": "linear"},
        {"primitives": ("none",)},
        {"output": "class"},
    ],
)
def test_impossible_settings_are_refused(settings):
    law = small(**settings)
    assert clone(law).get_params() == law.get_params()
    with pytest.raises(ValueError, match=r"\w"):
        law.fit(x, y)
