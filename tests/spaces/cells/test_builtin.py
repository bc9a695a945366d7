"""What a user changes in a supernet, computed by the fused and grouped cells as edge by edge."""

from __future__ import annotations

import pickle
import types

import pytest
import torch
import torch.nn.functional as F
from cases import batch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.utils import parametrizations

from gradnas import DARTS_OPERATIONS, ConvCell, Search, Softmax
from gradnas.spaces.cells import fold, stencils
from gradnas.spaces.cells.fused_cell import FusedCell
from gradnas.spaces.cells.kernels import kernels
from gradnas.spaces.operations import FactorizedReduce, Zero, sep_conv

pytestmark = pytest.mark.slow  # many combinations, or whole runs

D = torch.float64
has_compiler = kernels(torch.zeros(1, 16, 2, 2)) is not None
needs_compiler = pytest.mark.skipif(not has_compiler, reason="no C++ compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "torch", "grouped"])
def backend(request, monkeypatch):
    monkeypatch.setattr(FusedCell, "grouped", request.param == "grouped")
    if request.param == "torch":
        for module in (fold, stencils):
            monkeypatch.setattr(module, "kernels", lambda *_: None)
    return request.param


def pair(change=None, operations=DARTS_OPERATIONS, cells=3):
    """The same supernet edge by edge and fused, each changed by `change`."""
    space = ConvCell(channels=8, cells=cells, nodes=2, operations=operations)
    torch.manual_seed(0)
    plain = space.supernet(3, 5, fused=False).to(D)
    fused = space.supernet(3, 5).to(D)
    for net in (plain, fused):
        for alpha in net.alphas.values():
            nn.init.normal_(alpha, generator=torch.Generator().manual_seed(1))
        if change is not None:
            torch.manual_seed(2)
            change(net)
    fused.load_state_dict(plain.state_dict())
    return plain, fused


def worst(found, expected):
    """The largest difference; a gradient that is missing is zero."""
    differences = [0.0]
    for a, b in zip(found, expected, strict=True):
        if a is not None or b is not None:
            a = torch.zeros(()) if a is None else a.detach().to(D)
            b = torch.zeros(()) if b is None else b.detach().to(D)
            differences.append((a - b).abs().max().item())
    return max(differences)


def check_same(plain, fused):
    """Outputs, gradients, statistics of two passes in the modes as they are; then eval mode."""
    for k in range(2):
        x, y = batch(k, size=4, dtype=D, side=8)
        x.requires_grad_()
        results = []
        for net in (plain, fused):
            logits = net(x)
            wanted = [p for p in net.parameters() if p.requires_grad] + [x]
            loss = F.cross_entropy(logits, y % 5)
            grads = torch.autograd.grad(loss, wanted, allow_unused=True)
            results.append([logits, *grads, *net.buffers()])
        assert worst(results[1], results[0]) < 1e-9, f"pass {k}"
    x, _ = batch(2, size=4, dtype=D, side=8)
    assert worst([fused.eval()(x)], [plain.eval()(x)]) < 1e-9
    assert worst(fused.buffers(), plain.buffers()) < 1e-9


def norms(net):
    """The BatchNorms of the cells."""
    return [m for m in net.cells.modules() if isinstance(m, nn.BatchNorm2d)]


# ---- settings of BatchNorms ----------------------------------------------------------------------


def with_settings(**settings):
    def change(net):
        for norm in norms(net):
            for name, value in settings.items():
                setattr(norm, name, value)

    return change


def frozen(net):
    for norm in norms(net):
        norm.eval()


def some_frozen(net):
    """Mixed modes in one cell, and in one operation."""
    for norm in norms(net)[::3]:
        norm.eval()


def adapted(net):
    """Statistics of the batch in a network that is otherwise in eval mode."""
    net.eval()
    for norm in norms(net):
        norm.train()


def one_eps(net):
    norms(net)[40].eps = 1e-2


def synchronised(net):
    nn.SyncBatchNorm.convert_sync_batchnorm(net.cells)


def some_momenta(net):
    for k, norm in enumerate(norms(net)):
        norm.momentum = (0.1, 0.3, 0.0, 1)[k % 4]


def some_cumulative(net):
    for norm in norms(net)[1::2]:
        norm.momentum = None


def replaced(make):
    """Every BatchNorm replaced by another one of the same width."""

    def change(net):
        for parent in list(net.cells.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, make(child.num_features).to(D))

    return change


def affine(net):
    replaced(nn.BatchNorm2d)(net)
    for norm in norms(net):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)


def frozen_affine(net):
    affine(net)
    for norm in norms(net):
        norm.requires_grad_(False)


class Doubled(nn.BatchNorm2d):
    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize(
    "change",
    [
        frozen,
        some_frozen,
        adapted,
        one_eps,
        with_settings(eps=1e-3),
        some_momenta,
        some_cumulative,
        with_settings(momentum=None),
        with_settings(track_running_stats=False),
        replaced(lambda c: nn.BatchNorm2d(c, affine=False, track_running_stats=False)),
        affine,
        frozen_affine,
        synchronised,
        replaced(lambda c: Doubled(c, affine=False)),
    ],
    ids=[
        *("frozen", "some_frozen", "adapted", "one_eps", "eps", "momenta", "some_cumulative"),
        *("cumulative", "tracking_off", "untracked", "affine", "frozen_affine", "synchronised"),
        "subclass",
    ],
)
def test_what_a_user_sets_on_batch_norms_counts(backend, change):
    check_same(*pair(change))


def test_a_frozen_norm_is_left_alone(backend):
    """The values themselves: the logits of a frozen supernet are those of its eval mode."""
    _, fused = pair(frozen)
    fused.stem.eval()
    x, _ = batch(0, size=4, dtype=D, side=8)
    before = [buffer.clone() for buffer in fused.buffers()]
    in_training = fused(x)
    assert worst(fused.buffers(), before) == 0.0
    assert worst([in_training], [fused.eval()(x)]) < 1e-9


# ---- changed and derived operations --------------------------------------------------------------


class AffineReduce(FactorizedReduce):
    def __init__(self, channels):
        super().__init__(channels, channels, affine=True)
        nn.init.uniform_(self.bn.weight, 0.5, 2.0)
        nn.init.normal_(self.bn.bias)


class HalvedReduce(FactorizedReduce):
    def forward(self, x):
        return 0.5 * super().forward(x) + 1.0


class Ones(Zero):
    def forward(self, x):
        return torch.ones_like(super().forward(x))


class Negated(nn.Identity):
    def forward(self, x):
        return -x


class Smooth(nn.MaxPool2d):
    def __init__(self, stride):
        super().__init__(3, stride, padding=1)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return torch.tanh(self.scale * super().forward(x))


class Wide(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + super().forward(-x)


def separable(channels, stride, affine):
    return Wide(*sep_conv(channels, 3, stride, affine))


DERIVED = {
    "affine": lambda c, s, a: nn.Identity() if s == 1 else AffineReduce(c),
    "halved": lambda c, s, a: nn.Identity() if s == 1 else HalvedReduce(c, c, affine=False),
    "exact": lambda c, s, a: nn.Identity() if s == 1 else FactorizedReduce(c, c, affine=False),
    "scaled": lambda c, s, a: nn.Identity() if s == 1 else FactorizedReduce(c, c, affine=True),
    "zero": lambda c, s, a: Ones(s),
    "identity": lambda c, s, a: Negated() if s == 1 else FactorizedReduce(c, c, affine=False),
    "pool": lambda c, s, a: Smooth(s),
    "separable": separable,
    "padded": lambda c, s, a: nn.MaxPool2d(5, s, padding=2),
    "ceiled": lambda c, s, a: nn.AvgPool2d(3, s, padding=1),
}


@pytest.mark.parametrize("name", DERIVED)
def test_classes_made_from_built_in_operations_run_themselves(backend, name):
    """Also under the names of built-in ones."""
    own = "skip_connect" if name in ("halved", "identity") else name
    check_same(*pair(operations={**DARTS_OPERATIONS, own: DERIVED[name]}))


def first(net, name, row=0):
    """An operation of the first cell."""
    return net.cells[0].operation(row, name)


def own_forward(net):
    for name in ("sep_conv_3x3", "max_pool_3x3", "none"):
        operation = first(net, name)
        original = operation.forward
        operation.forward = lambda x, original=original: original(x) + x
    layer = first(net, "dil_conv_5x5", 1)[0]
    layer.forward = types.MethodType(lambda self, x: torch.sigmoid(x), layer)


def hooked(net):
    first(net, "sep_conv_3x3").register_forward_hook(lambda m, i, output: 2.0 * output)
    first(net, "dil_conv_3x3")[1].register_forward_pre_hook(lambda m, inputs: (3.0 * inputs[0],))
    first(net, "avg_pool_3x3", 2)[1].register_full_backward_hook(lambda m, i, o: (2.0 * i[0],))
    net.cells[1].preprocess0[1].register_forward_hook(lambda m, i, output: output + 1.0)


def parametrized(net):
    parametrizations.weight_norm(first(net, "sep_conv_5x5")[2])
    parametrizations.spectral_norm(first(net, "dil_conv_3x3", 1)[2])


def with_bias(net):
    first(net, "sep_conv_3x3")[2] = nn.Conv2d(8, 8, 1).to(D)
    first(net, "dil_conv_3x3")[1] = nn.Conv2d(8, 8, 3, padding=1, bias=False).to(D)
    first(net, "dil_conv_5x5")[1].padding_mode = "circular"
    first(net, "sep_conv_5x5")[0] = nn.GELU()
    net.cells[2].preprocess1[0] = nn.Tanh()


def tied(net):
    """One module on two edges: its statistics move twice, in the order of the edges."""
    net.cells[0].edges[4]["sep_conv_3x3"] = net.cells[0].edges[2]["sep_conv_3x3"]
    net.cells[2].edges[3]["dil_conv_3x3"] = net.cells[2].edges[1]["dil_conv_3x3"]


def tied_norms(net):
    net.cells[0].edges[4]["max_pool_3x3"][1] = net.cells[0].edges[2]["sep_conv_3x3"][3]


def tied_cells(net):
    """BatchNorms that stand in two cells."""
    net.cells[3].preprocess1[2] = net.cells[2].preprocess1[2]
    net.cells[3].edges[3]["max_pool_3x3"][1] = net.cells[2].edges[3]["max_pool_3x3"][1]


def frozen_weights(net):
    for parameter in net.cells[1].parameters():
        parameter.requires_grad_(False)


@pytest.mark.parametrize(
    "change",
    [own_forward, hooked, parametrized, with_bias, tied, tied_norms, tied_cells, frozen_weights],
    ids=lambda change: change.__name__,
)
def test_instances_that_a_user_changed_run_themselves(backend, change):
    check_same(*pair(change, cells=4 if change is tied_cells else 3))


def test_exact_built_in_operations_are_not_called(backend, monkeypatch):
    """What makes the cells fast: no operation is a module call, whatever its name."""
    _, fused = pair(operations={**DARTS_OPERATIONS, "mine": lambda c, s, a: sep_conv(c, 3, s, a)})
    called = []
    monkeypatch.setattr(FusedCell, "output", lambda self, operation, *_: called.append(operation))
    fused(batch(0, size=4, dtype=D, side=8)[0])
    assert called == []


def test_a_pool_of_ones_own_keeps_its_weights_in_the_derived_network():
    operations = {
        "pool": lambda c, s, a: Smooth(s),
        "skip_connect": DARTS_OPERATIONS["skip_connect"],
    }
    _, fused = pair(operations=operations)
    with torch.no_grad():
        for name, parameter in fused.named_parameters():
            if name.endswith(".scale"):
                parameter.fill_(3.0)
    text = "normal=[('pool', 0), ('pool', 1), ('pool', 0), ('pool', 1)], normal_concat=[2, 3]"
    genotype = ConvCell().decision(f"Genotype({text}, {text.replace('normal', 'reduce')})")
    scales = [m.scale.item() for m in fused.derived(genotype).modules() if isinstance(m, Smooth)]
    assert scales == [3.0] * 12


# ---- operations that do not fit ------------------------------------------------------------------


class InPlace(nn.Module):
    def forward(self, x):
        return torch.relu_(x)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (
            lambda c, s, a: nn.Conv2d(c, c, 1),
            r"edge 0 \(state 0 to 2\) of cell 1, a reduce cell: operation 'mine' gives the shape "
            r"\(4, 16, 8, 8\), where the edge needs \(4, 16, 4, 4\): its factory was asked for "
            r"channels=16 and stride=2",
        ),
        (
            lambda c, s, a: nn.Conv2d(c, 2 * c, 1, s),
            r"of cell 0, a normal cell: operation 'mine' gives the shape \(4, 16, 8, 8\), where "
            r"the edge needs \(4, 8, 8, 8\)",
        ),
        # torch would stretch both in silence
        (lambda c, s, a: nn.Conv2d(c, 1, 1, s), r"\(4, 1, 8, 8\), where the edge needs \(4, 8, 8"),
        (lambda c, s, a: nn.AdaptiveAvgPool2d(1), r"\(4, 8, 1, 1\), where the edge needs \(4, 8"),
        (lambda c, s, a: Zero(1), r"cell 1, a reduce cell: operation 'mine' gives .*stride=2"),
        (lambda c, s, a: nn.Identity(), r"cell 1, a reduce cell: operation 'mine' gives"),
        (lambda c, s, a: InPlace(), r"cell 0, a normal cell: operation 'mine' .* in place"),
    ],
    ids=["stride", "width", "one_channel", "one_pixel", "zero", "identity", "in_place"],
)
def test_an_operation_that_does_not_fit_is_named(backend, fused, factory, sentence):
    nets = pair(operations={"sep_conv_3x3": DARTS_OPERATIONS["sep_conv_3x3"], "mine": factory})
    with pytest.raises(ValueError, match=sentence):
        nets[fused](batch(0, size=4, dtype=D, side=8)[0])


def test_an_operation_that_does_not_fit_is_named_in_a_derived_network():
    operations = {"mine": lambda c, s, a: nn.AdaptiveAvgPool2d(1) if s == 2 else nn.Identity()}
    space = ConvCell(channels=4, cells=3, nodes=1, operations=operations)
    network = space.network(space.random_decision(torch.Generator().manual_seed(0)))
    sentence = (
        r"the operation 'mine' of node 2 on state [01] gives the shape \(4, 8, 1, 1\), where the "
        r"cell needs \(4, 8, 4, 4\): its factory was asked for channels=8 and stride=2"
    )
    with pytest.raises(ValueError, match=sentence):
        network(torch.randn(4, 3, 8, 8))


# ---- one pixel, transforms, pickles --------------------------------------------------------------


def test_one_image_on_one_pixel_in_eval_mode(backend):
    """A cell of skip connections alone has no BatchNorm, and nothing to divide by."""
    plain, fused = pair()
    columns = [plain.shape.names.index("skip_connect")] * 5
    like = {kind: alpha.detach() for kind, alpha in plain.alphas.items()}
    draw = type(plain.dense_draw()).one_hot({"normal": columns, "reduce": columns}, like)
    x = torch.randn(1, 3, 4, 4, dtype=D)
    expected = plain.eval()(x, draw=draw)
    assert torch.isfinite(expected).all()
    assert worst([fused.eval()(x, draw=draw)], [expected]) < 1e-12


# torch's own, when forward derivatives are first asked for
of_torch_itself = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def transforms(net, x):
    """Values of torch.func's transforms of the network."""
    params = {name: p.detach() for name, p in net.named_parameters()}
    ones = {name: torch.ones_like(p) for name, p in params.items()}

    def loss(params, x=x):
        return functional_call(net, params, (x,)).square().sum()

    gradient = grad(loss)(params)
    value, slope = jvp(loss, (params,), (ones,))
    two = vmap(lambda x: functional_call(net, params, (x,)))(torch.stack([x, 2 * x]))
    each = vmap(lambda x: grad(loss)(params, x)["alphas.normal"])(torch.stack([x, 2 * x]))
    return [*gradient.values(), value, slope, two, each]


@of_torch_itself
def test_transforms_of_torch_func(backend):
    """In eval mode, as BatchNorm itself refuses them while it updates its statistics."""
    plain, fused = pair()
    x, _ = batch(0, size=4, dtype=D, side=8)
    found = transforms(fused.eval(), x)
    assert worst(found, transforms(plain.eval(), x)) < 1e-9
    # against autograd: the directional derivative is the sum of all gradients
    loss = fused(x).square().sum()
    grads = torch.autograd.grad(loss, list(fused.parameters()))
    assert worst(found[: len(grads)], grads) < 1e-9
    assert abs(found[-3].item() - sum(g.sum().item() for g in grads)) < 1e-8 * abs(loss.item())


@of_torch_itself
def test_many_gradients_at_once_and_forward_derivatives(backend):
    plain, fused = pair()
    x, _ = batch(0, size=4, dtype=D, side=8)
    results = []
    for net in (plain, fused):
        logits = net(x)
        heads = torch.eye(5, dtype=D)[:, None].expand(5, 4, 5)
        alphas = list(net.alphas.values())
        rows = torch.autograd.grad(logits, alphas, heads, is_grads_batched=True)
        net.eval()
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            slope = torch.autograd.forward_ad.unpack_dual(net(dual)).tangent
        results.append([*rows, slope])
    assert worst(results[1], results[0]) < 1e-9


def my_operation(channels, stride, affine):
    return sep_conv(channels, 3, stride, affine)


@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_spaces_and_supernets_can_be_pickled(backend, way, tmp_path):
    """Also with a module's own functions as operations; the copy computes the same, as fast."""
    space = ConvCell(
        channels=4, cells=3, nodes=2, operations={**DARTS_OPERATIONS, "my": my_operation}
    )
    torch.manual_seed(0)
    supernet = space.supernet(3, 5).to(D)
    if way == "pickle":
        again, net = pickle.loads(pickle.dumps((space, supernet)))
    else:
        torch.save((space, supernet), tmp_path / "x.pt")
        again, net = torch.load(tmp_path / "x.pt", weights_only=False)
    assert again == space and again.operations["none"] is DARTS_OPERATIONS["none"]
    x, _ = batch(0, size=4, dtype=D, side=8)
    assert torch.equal(net(x), supernet(x))
    assert worst(net.buffers(), supernet.buffers()) == 0.0


def test_a_derived_network_costs_the_caller_no_random_numbers():
    search = Search(ConvCell(channels=4, cells=3, nodes=1).supernet(3, 5), relaxation=Softmax())
    for weights in ("keep", "fresh"):
        state = torch.get_rng_state()
        search.result().derive(weights)
        assert torch.equal(torch.get_rng_state(), state)
