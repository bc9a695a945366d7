"""The bilevel loop over the user's own module."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, RELAXATIONS, TwoChoices, batch, loss_on, name_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import (
    AlphaOptimizer,
    Choice,
    ConvCell,
    FirstOrder,
    GumbelSoftmax,
    Search,
    Unrolled,
    WeightOptimizer,
)
from gradnas.spaces.base import tables_of

BATCHES = [batch(k) for k in range(4)]
VALID = [batch(10 + k) for k in range(3)]


def fit(seed=0, epochs=2, **settings):
    torch.manual_seed(seed)
    search = Search(TwoChoices(), **settings)
    search.fit(BATCHES, VALID, loss=F.cross_entropy, epochs=epochs, progress=False)
    return search


def same(one, other):
    return all(torch.equal(one[k], other[k]) for k in one) and one.keys() == other.keys()


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_every_combination_runs_and_repeats(relaxation, gradient):
    """... or is refused at once, where there are no second derivatives."""
    if gradient.differentiates_twice and relaxation.once_differentiable:
        with pytest.raises(ValueError, match="second derivatives"):
            Search(TwoChoices(), relaxation=relaxation, gradient=gradient)
        return
    one, other = (fit(relaxation=relaxation, gradient=gradient, epochs=1) for _ in range(2))
    assert same(one.supernet.state_dict(), other.supernet.state_dict())
    result = one.result()
    assert set(result.choices) == {"first", "second"}
    assert not any(isinstance(m, Choice) for m in result.derive().modules())


def test_one_step_written_out():
    """Alpha first by Adam on the validation loss, then w by clipped SGD on the train loss with the
    new alpha (A6)."""
    torch.manual_seed(0)
    net = TwoChoices().double()
    search = Search(
        net, gradient=FirstOrder(), weights=WeightOptimizer(lr=0.1, clip_norm=0.05), seed=4
    )
    twin = copy.deepcopy(search.supernet)
    (x, y), (xv, yv) = batch(0, dtype=torch.float64), batch(1, dtype=torch.float64)
    report = search.step(lambda m: F.cross_entropy(m(x), y), lambda m: F.cross_entropy(m(xv), yv))

    alphas = list(twin.alphas.values())
    weights = [p for n, p in twin.named_parameters() if not n.startswith("alphas")]
    buffers = copy.deepcopy(dict(twin.named_buffers()))
    adam = torch.optim.Adam(alphas, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    valid_loss = F.cross_entropy(twin(xv), yv)
    for a, g in zip(alphas, torch.autograd.grad(valid_loss, alphas), strict=True):
        a.grad = g
    adam.step()
    for n, b in twin.named_buffers():
        b.copy_(buffers[n])
    sgd = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=3e-4)
    train_loss = F.cross_entropy(twin(x), y)
    for p, g in zip(weights, torch.autograd.grad(train_loss, weights), strict=True):
        p.grad = g
    assert nn.utils.clip_grad_norm_(weights, 0.05) > 0.05  # the clip is at work
    sgd.step()
    assert same(search.supernet.state_dict(), twin.state_dict())
    assert report.train_loss == train_loss and report.valid_loss == valid_loss


def test_the_unrolled_step_looks_through_the_step_that_is_taken():
    """With alpha fixed and no clipping, the validation loss at w' is the next step's loss on the
    same batch."""
    torch.manual_seed(0)
    seen = []
    settings = WeightOptimizer(lr=0.1, clip_norm=None)
    search = Search(
        TwoChoices().double(), gradient=Unrolled(), weights=settings, alphas=AlphaOptimizer(lr=0.0)
    )
    (x, y), (xv, yv) = batch(0, dtype=torch.float64), batch(1, dtype=torch.float64)

    def valid(net):
        loss = F.cross_entropy(net(xv), yv)
        seen.append(loss.item())
        return loss

    for _ in range(3):  # the momentum buffer differs each time
        search.step(lambda net: F.cross_entropy(net(x), y), valid)
        with torch.no_grad():
            after = copy.deepcopy(search.supernet)(xv)
        assert F.cross_entropy(after, yv).item() == pytest.approx(seen[-1], rel=1e-12)


def test_alphas_stay_out_of_the_weight_optimiser_and_its_clip():
    search = Search(TwoChoices())
    ids = {id(a) for a in search.alphas.values()}
    assert not any(id(p) in ids for g in search.weight_optimizer.param_groups for p in g["params"])
    assert set(search.supernet.state_dict()) >= {"alphas.first", "alphas.second"}


def test_operations_that_were_not_sampled_are_untouched():
    torch.manual_seed(0)
    net = nn.Sequential(
        Choice({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)}, name="c"), nn.Linear(3, 2)
    )
    search = Search(net, relaxation=GumbelSoftmax(temperature=1.0, temperature_end=1.0))
    x = torch.randn(4, 3)
    for _ in range(6):
        before = copy.deepcopy(net.state_dict())
        search.step(lambda m: m(x).square().mean(), lambda m: m(x).square().mean())
        changed = {
            k.split(".")[2]
            for k, v in net.state_dict().items()
            if k.startswith("0.") and not torch.equal(before[k], v)
        }
        assert len(changed) == 1  # no decay, no momentum on the other


def test_warm_up_epochs_leave_the_alphas_alone():
    torch.manual_seed(0)
    search = Search(TwoChoices(), warmup_epochs=1)
    before = tables_of(search.supernet)
    for epoch in range(2):
        for train, valid in search.pairs(BATCHES, VALID):
            search.step(loss_on(train), loss_on(valid))
        assert same(before, tables_of(search.supernet)) == (epoch == 0)


def test_the_learning_rate_is_that_of_the_paper():
    """0.025 at epoch 0, 0.013 at 25, 0.0010237 at 49."""
    settings = WeightOptimizer()
    assert settings.lr_at(0, 50) == 0.025
    assert settings.lr_at(25, 50) == pytest.approx(0.013)
    assert settings.lr_at(49, 50) == pytest.approx(0.0010237, abs=5e-8)
    search = Search(TwoChoices(), epochs=2)
    rates = []
    for _ in range(2):
        for _ in search.pairs(BATCHES, VALID):
            rates.append(search.weight_optimizer.param_groups[0]["lr"])
    assert rates == [0.025] * 4 + [pytest.approx(0.013)] * 4


def test_the_validation_iterator_goes_on_over_epochs_and_starts_over():
    search = Search(TwoChoices())
    drawn = []
    for _ in range(2):
        drawn += [
            next(k for k, (x, _) in enumerate(VALID) if torch.equal(x, xv))
            for _, (xv, _) in search.pairs(BATCHES, VALID)
        ]
    assert drawn == [0, 1, 2, 0, 1, 2, 0, 1]


def test_loaders_without_batches_are_an_error():
    search = Search(TwoChoices())
    with pytest.raises(ValueError, match="train loader yields no batch"):
        list(search.pairs([], VALID))
    with pytest.raises(ValueError, match="validation loader yields no batch"):
        list(search.pairs(BATCHES, []))


def test_fit_takes_torch_loaders():
    dataset = TensorDataset(torch.cat([x for x, _ in BATCHES]), torch.cat([y for _, y in BATCHES]))
    loader = DataLoader(dataset, batch_size=8, shuffle=True)
    result = Search(TwoChoices()).fit(
        loader, loader, loss=F.cross_entropy, epochs=1, progress=False
    )
    assert result.choices["second"] in ("depthwise", "pointwise")


def test_fit_takes_several_inputs_and_refuses_other_batches():
    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = Choice({"linear": nn.Linear(3, 3), "same": nn.Identity()}, name="mix")

        def forward(self, a, b):
            return self.mix(a + b)

    data = [(torch.ones(2, 3), torch.ones(2, 3), torch.zeros(2, 3))]
    assert Search(Add()).fit(data, data, loss=F.mse_loss, epochs=1, progress=False).choices
    with pytest.raises(ValueError, match="write your own loop"):
        Search(Add()).fit([{"a": torch.ones(1)}], data, loss=F.mse_loss, epochs=1, progress=False)


@pytest.mark.parametrize("relaxation", [*RELAXATIONS[:2], RELAXATIONS[-1]], ids=name_of)
def test_state_dict_resumes_bit_for_bit(relaxation):
    """Through a file that is loaded with weights_only=True, into a module with other initial
    weights."""
    whole = fit(epochs=4, relaxation=relaxation, gradient=Unrolled())
    torch.manual_seed(0)
    first = Search(TwoChoices(), relaxation=relaxation, gradient=Unrolled(), epochs=4)
    for _ in range(2):
        for train, valid in first.pairs(BATCHES, VALID):
            first.step(loss_on(train), loss_on(valid))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    torch.manual_seed(99)
    second = Search(TwoChoices(), relaxation=relaxation, gradient=Unrolled(), epochs=4, seed=5)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.fit(BATCHES, VALID, loss=F.cross_entropy, epochs=4, progress=False)
    assert same(whole.supernet.state_dict(), second.supernet.state_dict())
    fresh = [s.result().derive(weights="fresh").state_dict() for s in (whole, second)]
    assert same(*fresh)


def test_a_state_of_another_network_is_refused():
    with pytest.raises(ValueError, match=r"lacks .*supernet"):
        Search(TwoChoices()).load_state_dict({})
    other = Search(
        nn.Sequential(Choice({"a": nn.Linear(3, 3), "b": nn.Identity()}, name="c"), nn.Linear(3, 1))
    )
    with pytest.raises(ValueError, match="another network"):
        Search(TwoChoices()).load_state_dict(other.state_dict())


def test_derive_keeps_weights_or_takes_those_of_the_beginning():
    torch.manual_seed(0)
    net = TwoChoices()
    start = copy.deepcopy(net.state_dict())
    search = Search(net)
    search.fit(BATCHES, VALID, loss=F.cross_entropy, epochs=1, progress=False)
    result = search.result()
    kept, fresh = result.derive().state_dict(), result.derive(weights="fresh").state_dict()
    assert torch.equal(kept["stem.weight"], net.state_dict()["stem.weight"])
    assert torch.equal(fresh["stem.weight"], start["stem.weight"])
    assert not torch.equal(kept["stem.weight"], fresh["stem.weight"])
    chosen = f"second.operations.{result.choices['second']}.weight"
    assert torch.equal(kept["second.weight"], net.state_dict()[chosen])
    assert torch.equal(fresh["second.weight"], start[chosen])
    with pytest.raises(ValueError, match="'keep' or 'fresh'"):
        result.derive(weights="old")


def test_a_derived_module_computes_what_the_one_hot_mixture_computes():
    search = fit()
    result = search.result()
    names = search.supernet.names
    draw = gradnas.Draw.one_hot(
        {k: [names[k].index(v)] for k, v in result.choices.items()}, tables_of(search.supernet)
    )
    x, _ = batch(0)
    assert torch.allclose(
        search.supernet.eval()(x, draw=draw), result.derive().eval()(x), atol=1e-6
    )


def test_choices_of_one_name_share_one_alpha_and_nest():
    def conv():
        return Choice(
            {"three": nn.Conv2d(4, 4, 3, padding=1), "one": nn.Conv2d(4, 4, 1)}, name="conv"
        )

    outer = Choice({"deep": nn.Sequential(conv(), conv()), "same": nn.Identity()}, name="outer")
    search = Search(nn.Sequential(conv(), outer))
    assert set(search.alphas) == {"conv", "outer"}
    with torch.no_grad():
        search.alphas["outer"].copy_(torch.tensor([0.0, 1.0]))
        search.alphas["conv"].copy_(torch.tensor([0.0, 1.0]))
    assert search.result().choices == {"conv": "one", "outer": "same"}
    derived = search.result().derive()
    assert isinstance(derived[0], nn.Conv2d) and isinstance(derived[1], nn.Identity)
    with torch.no_grad():
        search.alphas["outer"].copy_(torch.tensor([1.0, 0.0]))
    assert [type(m) for m in search.result().derive()[1]] == [nn.Conv2d, nn.Conv2d]


def test_a_choice_that_cannot_be_reached_any_more_is_not_reported():
    inner = Choice({"a": nn.Linear(2, 2), "b": nn.Identity()}, name="inner")
    search = Search(
        nn.Sequential(
            Choice({"inner": inner, "same": nn.Identity()}, name="outer"), nn.Linear(2, 2)
        )
    )
    with torch.no_grad():
        search.alphas["outer"].copy_(torch.tensor([0.0, 1.0]))
    assert search.result().choices == {"outer": "same"}


def test_unnamed_choices_are_named_by_their_path():
    net = nn.ModuleDict(
        {"block": nn.Sequential(Choice({"a": nn.Linear(2, 2), "b": nn.Identity()}))}
    )
    assert list(Search(net).alphas) == ["block/0"]
    again = nn.ModuleDict(
        {"block": nn.Sequential(Choice({"a": nn.Linear(2, 2), "b": nn.Identity()}))}
    )
    again["block"] = torch.compile(again["block"], backend="eager")
    assert list(Search(again).alphas) == ["block/0"]


def test_results_are_saved(tmp_path):
    fit().result().save(tmp_path / "choices.json")
    assert '"second"' in (tmp_path / "choices.json").read_text()
    supernet = ConvCell(channels=4, cells=2, nodes=2).supernet()
    Search(supernet).result().save(tmp_path / "genotype.json")
    assert gradnas.Genotype.load(tmp_path / "genotype.json") == supernet.decide()


@pytest.mark.parametrize("where", ["train", "valid"])
def test_nan_stops_before_the_update(where):
    search = fit(epochs=1)
    before = copy.deepcopy(search.supernet.state_dict())
    x, y = batch(0)

    def loss(net, broken):
        value = F.cross_entropy(net(x), y)
        return value * float("nan") if broken else value

    with pytest.raises(gradnas.NonFiniteError, match=r"step 4 \(epoch 1\).*smaller learning rate"):
        search.step(
            lambda net: loss(net, where == "train"), lambda net: loss(net, where == "valid")
        )
    assert same(before, search.supernet.state_dict())


def test_bf16_runs_under_autocast():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(x.dtype)
            return x

    net = nn.Sequential(
        nn.Linear(4, 4), Watch(), Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="c")
    )
    search = Search(net, gradient=Unrolled(), precision="bf16")
    x = torch.randn(2, 4)
    search.step(lambda m: m(x).float().square().mean(), lambda m: m(x).float().square().mean())
    # But for the two perturbed passes, whose small change of the weights 16 bits would not show.
    assert [dtype for dtype in seen if dtype == torch.float32] == [torch.float32] * 2
    assert set(seen) == {torch.bfloat16, torch.float32}
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_a_finite_difference_of_weights_in_16_bits_is_refused():
    def net():
        return nn.Sequential(nn.Linear(4, 4), Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}))

    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=r"'0\.weight' is .*float16.*mode=\"exact\""):
            Search(net().to(dtype), gradient=Unrolled())
        Search(net().to(dtype), gradient=Unrolled(mode="exact"))
    frozen = net()
    frozen[0].to(torch.bfloat16).requires_grad_(False)
    Search(frozen, gradient=Unrolled())  # it perturbs what is trained

    search = Search(net(), gradient=Unrolled(), precision="bf16")
    x = torch.randn(2, 4).bfloat16()
    with pytest.raises(ValueError, match=r"inputs in float32.*mode=\"exact\""):
        search.step(lambda m: m(x).float().mean(), lambda m: m(x).float().square().mean())


def gradient_under(gradient, dtype, precision="fp32"):
    """The architecture gradient of a small network, in one number format."""
    torch.manual_seed(0)
    mixed = Choice({"a": nn.Sequential(nn.Linear(16, 16), nn.Tanh()), "b": nn.Identity()}, "c")
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), mixed, nn.Linear(16, 4)).to(dtype)
    sgd = gradnas.WeightOptimizer(lr=0.5, momentum=0.0, weight_decay=0.0)
    search = Search(net, gradient=gradient, weights=sgd, precision=precision)
    losses = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(64, 8, generator=generator).to(dtype)
        y = torch.randint(4, (64,), generator=generator)
        losses.append(lambda net, x=x, y=y: F.cross_entropy(net(x).float(), y))
    inner = search.weight_step.inner_step(gradient) if gradient.needs_inner_step else None
    return search.alpha_step.gradient(*losses, {}, inner)[0]["c"].double()


@pytest.mark.parametrize(
    ("gradient", "dtype"),
    [
        (Unrolled(), torch.float32),
        (Unrolled(mode="exact"), torch.float32),
        (Unrolled(mode="exact"), torch.bfloat16),
        (gradnas.Implicit(steps=40), torch.float32),
        (gradnas.Implicit(steps=40), torch.bfloat16),
    ],
)
def test_the_second_order_term_survives_16_bits(gradient, dtype):
    """A finite difference under autocast was 18% of the term off, in bf16 weights 63%."""
    exact = Unrolled(mode="exact") if isinstance(gradient, Unrolled) else gradient
    right = gradient_under(exact, torch.float64)
    term = (right - gradient_under(gradnas.FirstOrder(), torch.float64)).norm()
    precision = "bf16" if dtype == torch.float32 else "fp32"
    found = gradient_under(gradient, dtype, precision)
    assert (found - right).norm() < 0.08 * term


class Turned(nn.Module):
    """A weight whose gradient lies in memory by columns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.choice = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}, name="c")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.choice(x @ self.weight.t().contiguous())


def test_an_optimizer_that_takes_all_weights_in_one_call_makes_the_same_step():
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))

    def weights(fused: bool | None) -> list[torch.Tensor]:
        net = Turned()
        search = Search(
            net, weights=lambda params: torch.optim.SGD(params, 0.1, momentum=0.9, fused=fused)
        )
        for _ in range(2):
            search.step(lambda m: m(x).square().mean(), lambda m: m(x).square().mean())
        return [p.detach() for p in net.parameters()]

    for one_call, one_by_one in zip(weights(True), weights(None), strict=True):
        torch.testing.assert_close(one_call, one_by_one, rtol=1e-5, atol=1e-6)


def test_ones_own_optimiser():
    search = fit(weights=lambda params: torch.optim.AdamW(params, lr=1e-3))
    assert isinstance(search.weight_optimizer, torch.optim.AdamW)
    fit(weights=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.5), gradient=Unrolled())


def test_inside_a_loss_the_network_can_only_be_called():
    with pytest.raises(AttributeError, match="can only be called"):
        Search(TwoChoices()).step(lambda net: net.head.weight.sum())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Search(nn.Linear(2, 2)), "holds no gradnas.Choice"),
        (lambda: Search(TwoChoices(), precision="fp16"), "precision must be"),
        (
            lambda: Search(TwoChoices(), precision="tf32"),
            "'tf32' is a format of CUDA devices; on cpu use 'fp32'",
        ),
        (
            lambda: Search(
                TwoChoices(), gradient=Unrolled(), weights=lambda p: torch.optim.Adam(p)
            ),
            "needs torch.optim.SGD with one parameter group, not Adam",
        ),
        (
            lambda: Search(Choice({"a": nn.Identity(), "b": nn.ReLU()}, name="c")),
            "no trainable weights",
        ),
        (
            lambda: Search(TwoChoices(), relaxation=GumbelSoftmax()).passes.progress,
            r"Search\(..., epochs=N\)",
        ),
        (
            lambda: Search(TwoChoices()).fit(BATCHES, VALID, loss=F.cross_entropy, epochs=0),
            "epochs must be at least 1",
        ),
        (
            lambda: Search(TwoChoices()).step(lambda net: net(batch(0)[0])),
            "must be a scalar tensor",
        ),
        (lambda: fit(epochs=1).result().genotype, "no genotype"),
        (
            lambda: Search(
                nn.Sequential(
                    Choice({"a": nn.Linear(2, 2), "b": nn.Identity()}, name="c"),
                    Choice({"a": nn.Linear(2, 2), "z": nn.Identity()}, name="c"),
                )
            ),
            "two Choices are named 'c' but offer different operations",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
