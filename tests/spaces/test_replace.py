"""Choices put into a model by name, type or question; and `Skip` among their operations."""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import gradnas
from gradnas import Choice, Search, Skip, replace

WIDTH = 4
X = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        return x + torch.tanh(self.mlp(self.norm(x)))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block() for _ in range(3)])
        self.beside = [self.layers[1].mlp]  # a plain list of what is registered elsewhere
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x) + self.beside[0](x)[:, :2]

    def encode(self, x, *, scale=1.0):
        return self.layers[0](x) * scale


def wider(old: nn.Module) -> dict[str, nn.Module]:
    return {"keep": old, "wide": nn.Sequential(nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH))}


def choices_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    return Search(model).supernet.names


# ---- what is meant -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("layers.*.mlp", ["layers/0/mlp", "layers/1/mlp", "layers/2/mlp"]),
        ("layers.0.*", ["layers/0/mlp", "layers/0/norm"]),
        ("head", ["head"]),
        (nn.LayerNorm, ["layers/0/norm", "layers/1/norm", "layers/2/norm"]),
        ((Block, nn.RNN), ["layers/0", "layers/1", "layers/2"]),
        (lambda module: getattr(module, "out_features", 0) == 2, ["head"]),
    ],
)
def test_layers_are_meant_by_pattern_type_or_question(which, names):
    model = Model()
    assert replace(model, which, lambda old: {"keep": old, "other": copy.deepcopy(old)}) is model
    assert sorted(choices_of(model)) == names


def test_a_rule_leaves_layers_by_none():
    model = Model()
    first = model.layers[0].mlp
    replace(model, nn.Linear, lambda old: wider(old) if old is first else None)
    assert list(choices_of(model)) == ["layers/0/mlp"]


def test_one_name_makes_one_decision():
    model = replace(Model(), "*.mlp", wider, name="mlp")
    assert choices_of(model) == {"mlp": ("keep", "wide")}


def test_two_copies_of_a_replaced_model_decide_for_themselves():
    one = replace(Model(), "*.0.mlp", wider)
    both = nn.Sequential(nn.ModuleDict({"a": one, "b": copy.deepcopy(one)}))
    assert sorted(choices_of(both)) == ["0/a/layers/0/mlp", "0/b/layers/0/mlp"]


def test_a_module_in_several_places_gets_one_choice_in_all():
    model = Model()
    model.layers[2].mlp = model.layers[0].mlp
    replace(model, "layers.0.mlp", wider)
    choice = model.layers[0].mlp
    assert isinstance(choice, Choice)
    assert model.layers[2].mlp is choice
    replace(model, "layers.1.mlp", wider)
    assert model.beside[0] is model.layers[1].mlp  # in a plain list too
    search = Search(model)
    for picked in ("keep", "wide"):
        decision = {"layers/0/mlp": picked, "layers/1/mlp": "keep"}
        derived = search.supernet.derived(decision)
        draw = search.supernet.one_hot_draw(decision)
        torch.testing.assert_close(derived(X), search.supernet(X, draw=draw))
        assert derived.layers[2].mlp is derived.layers[0].mlp


def test_choices_inside_operations_are_made_from_the_inside():
    model = replace(Model(), "*.mlp", wider)
    replace(model, "layers.?", lambda old: {"keep": old, "skip": Skip()})
    names = choices_of(model)
    assert names["layers/0"] == ("keep", "skip")
    assert names["layers/0/operations/keep/mlp"] == ("keep", "wide")


@pytest.mark.parametrize(
    ("which", "rule", "words"),
    [
        ("layers.*.mpl", wider, "no module whose name fits 'layers.*.mpl'"),
        ("haed", wider, "'head'"),
        (nn.Conv2d, wider, "no module of type Conv2d"),
        (lambda module: False, wider, "no module for which"),
        ("layers.*", wider, "'layers.0.mlp' lies inside 'layers.0'"),
        ("*.mlp", lambda old: None, "the rule gave None for 'layers.0.mlp'"),
        ("*.mlp", lambda old: [old], "for 'layers.0.mlp' it returned a list"),
        ("*.mlp", lambda old: {"keep": old}, "the rule for 'layers.0.mlp': .*at least two"),
        ("*.mlp", lambda old: {"a": old, "b": 3}, "the rule for 'layers.0.mlp': .*'b' is a int"),
        ("*.mlp", lambda old: {"a": Skip(), "b": Skip()}, "all its operations are a Skip"),
        (3, wider, "by a pattern of names, a type or a function, not by 3"),
    ],
)
def test_what_cannot_be_replaced_is_refused_and_changes_nothing(which, rule, words):
    model = Model()
    before = dict(model.named_modules())
    with pytest.raises(ValueError, match=words):
        replace(model, which, rule)
    assert dict(model.named_modules()) == before


def test_what_is_a_choice_or_inside_one_is_refused():
    model = replace(Model(), "layers.0.mlp", wider)
    with pytest.raises(ValueError, match=r"'layers.0.mlp' is a Choice already"):
        replace(model, "layers.0.mlp", wider)
    with pytest.raises(ValueError, match=r"lies inside the Choice at 'layers.0.mlp'"):
        replace(model, nn.Linear, wider)
    inside = {id(one) for one in model.layers[0].mlp.modules()}
    replace(model, nn.Linear, lambda old: None if id(old) in inside else wider(old))
    assert len(choices_of(model)) == 4


# ---- other methods in a loss ---------------------------------------------------------------------


def test_a_method_runs_with_the_weights_and_mixing_weights_of_its_pass():
    """A second-order gradient evaluates losses at weights that the network does not have."""

    class Called(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model.encode(x, scale=3.0)

    def moved(model, loss):
        search = Search(model, gradient=gradnas.Unrolled(mode="exact"), seed=3)
        before = torch.cat([alpha.detach().clone() for alpha in search.alphas.values()])
        for _ in range(3):
            search.step(loss, loss)
        return torch.cat([alpha.detach() for alpha in search.alphas.values()]) - before

    torch.manual_seed(0)
    model = replace(Model(), "layers.0.mlp", wider)
    wrapped = Called(copy.deepcopy(model))
    by_method = moved(model, lambda net: net.method("encode", X, scale=3.0).square().mean())
    by_call = moved(wrapped, lambda net: net(X).square().mean())
    torch.testing.assert_close(by_method, by_call)
    assert by_method.abs().max() > 0


def test_a_method_of_a_part_is_called_by_its_path():
    model = replace(Model(), "layers.0.mlp", wider)
    search = Search(model)
    found = []

    def loss(net):
        found.append(net.method("layers.0.norm.forward", X))
        return net(X).sum()

    search.step(loss)
    torch.testing.assert_close(found[0], nn.LayerNorm(WIDTH)(X))


@pytest.mark.parametrize(
    ("name", "words"), [("encod", "no attribute 'encod'.*encode"), ("beside", "and no method")]
)
def test_what_is_no_method_is_refused(name, words):
    search = Search(replace(Model(), "layers.0.mlp", wider))
    with pytest.raises(ValueError, match=words):
        search.step(lambda net: net.method(name, X).sum())


def test_networks_of_published_spaces_have_no_methods_of_a_users():
    search = Search(gradnas.ConvCell(channels=4, cells=2, nodes=1).supernet())
    with pytest.raises(ValueError, match="one's own module"):
        search.step(lambda net: net.method("encode", X).sum())


# ---- Skip ----------------------------------------------------------------------------------------


@dataclass
class Output:
    hidden: Tensor
    attention: Tensor | None = None
    name: str = "layer"


class Pair(NamedTuple):
    hidden: Tensor
    rest: tuple[None, int]


FORMS = {
    "tensor": lambda h: h,
    "tuple": lambda h: (h, None),
    "list": lambda h: [h, 3],
    "dict": lambda h: {"hidden": h, "cache": None},
    "dataclass": lambda h: Output(h),
    "named tuple": lambda h: Pair(h, (None, 1)),
    "nested": lambda h: ((h, None), {"more": None}),
}


class Layer(nn.Module):
    """A layer of some form, that takes a mask as a keyword."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden, mask=None, *, scale=1.0):
        hidden = self.linear(hidden) * scale
        return FORMS[self.form](hidden if mask is None else hidden * mask)


class Around(nn.Module):
    """Calls the layer in several ways, and looks at all that it gives."""

    def __init__(self, form: str, how: str) -> None:
        super().__init__()
        self.form = form
        self.how = how
        self.layer = Choice({"layer": Layer(form), "skip": Skip()}, name="layer")
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        mask = torch.ones(WIDTH)
        if self.how == "position":
            output = self.layer(x)
        elif self.how == "mask":
            output = self.layer(x, mask, scale=2.0)
        else:
            output = self.layer(scale=2.0, mask=mask, hidden=x)
        assert type(output) is type(FORMS[self.form](x))
        if isinstance(output, Tensor):
            return self.head(output)
        if isinstance(output, (Output, Pair)):
            return self.head(output.hidden)
        first = output["hidden"] if isinstance(output, dict) else output[0]
        return self.head(first[0] if isinstance(first, tuple) else first)


@pytest.mark.parametrize("how", ["position", "mask", "keywords"])
@pytest.mark.parametrize("form", FORMS)
def test_a_skip_gives_what_its_neighbours_give(form, how):
    torch.manual_seed(0)
    net = Around(form, how)
    search = Search(net, seed=1)
    search.step(lambda net: net(X).square().mean(), lambda net: net(X).square().mean())
    for picked in ("layer", "skip"):
        decision = {"layer": picked}
        network = search.supernet.derived(decision)
        draw = search.supernet.one_hot_draw(decision)
        torch.testing.assert_close(network(X), search.supernet(X, draw=draw))
    torch.testing.assert_close(network(X), net.head(X))
    # A plain module: copied, saved and read by torch alone.
    parts = [type(module).__module__ for module in network.modules()]
    assert not any(part.startswith("gradnas.") for part in parts)
    torch.testing.assert_close(copy.deepcopy(network)(X), network(X))
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(X), network(X))


def test_a_skip_of_a_tensor_is_an_identity():
    net = nn.Sequential(Choice({"layer": nn.Linear(WIDTH, WIDTH), "skip": Skip()}, name="a"))
    net(X)
    network = gradnas.derive(net, {"a": "skip"})
    assert type(network[0]) is nn.Identity


@pytest.mark.parametrize(
    "relaxation", [gradnas.BinaryGates(), gradnas.GumbelSoftmax(), gradnas.Sigmoid()]
)
@pytest.mark.parametrize("form", ["tuple", "dataclass"])
def test_a_skip_under_relaxations_that_run_it_alone(form, relaxation):
    for seed in range(4):
        torch.manual_seed(0)
        search = Search(Around(form, "mask"), relaxation=relaxation, seed=seed, epochs=2)
        for _ in range(3):
            report = search.step(
                lambda net: net(X).square().mean(), lambda net: net(X).square().mean()
            )
            assert report.train_loss.isfinite()


def test_a_skip_that_runs_alone_first_learns_without_a_trace():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(WIDTH)
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(self.norm(x)), None

    choice = Choice({"layer": Counts(), "skip": Skip()}, name="a")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = choice
            self.head = nn.Linear(WIDTH, 2)

        def forward(self, x):
            return self.head(self.a(x)[0])

    search = Search(Net())
    before = {name: t.clone() for name, t in search.supernet.net.named_buffers()}
    state = torch.get_rng_state()
    draw = search.supernet.one_hot_draw({"a": "skip"})
    torch.testing.assert_close(search.supernet(X, draw=draw), search.supernet.net.head(X))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in search.supernet.net.named_buffers():
        assert torch.equal(tensor, before[name])


def test_what_a_skip_has_learnt_is_in_the_state_of_the_search():
    first = Search(Around("tuple", "keywords"), seed=1)
    first.step(lambda net: net(X).mean())
    resumed = Search(Around("tuple", "keywords"), seed=1)
    with pytest.raises(ValueError, match="run the module once on a batch"):
        resumed.supernet.derived({"layer": "skip"})
    resumed.load_state_dict(first.state_dict())
    derived = resumed.supernet.derived({"layer": "skip"})
    torch.testing.assert_close(derived(X), resumed.supernet.net.head(X))
    fresh = resumed.supernet.derived({"layer": "skip"}, weights="fresh")
    assert fresh(X).shape == (6, 2)


class Attention(nn.Module):
    def forward(self, x):
        return x, x.softmax(-1)


class Rows(nn.Module):
    def forward(self, x):
        return x, torch.arange(3)


class Several(nn.Module):
    """Gives another form in eval mode."""

    def forward(self, x):
        return (x, None) if self.training else (x, None, None)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Attention(), r"'layer' also gives \(6, 4\) at \[1\], which a Skip .*output_attentions"),
        (Rows(), r"also gives integers of shape \(3,\) at \[1\]"),
        (nn.LSTM(WIDTH, WIDTH), r"also gives"),
    ],
)
def test_more_tensors_than_a_skip_could_give_are_refused(layer, words):
    choice = Choice({"layer": layer, "skip": Skip()}, name="a")
    with pytest.raises(ValueError, match=words):
        choice(X)


def test_a_skip_in_several_forms_cannot_be_derived():
    net = nn.Sequential(Choice({"layer": Several(), "skip": Skip()}, name="a"))
    net(X)
    net.eval()
    net(X)
    with pytest.raises(ValueError, match="2 different forms"):
        gradnas.derive(net, {"a": "skip"})


def test_layers_around_read_the_settings_that_all_but_the_skip_agree_in():
    class Kind(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_type = "full"
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x, mask=None):
            return self.linear(x)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Choice({"a": Kind(), "b": Kind(), "skip": Skip()}, name="a")

        def forward(self, x):
            assert self.layer.attention_type == "full"
            return self.layer(x, mask=None)

    search = Search(Reads())
    search.step(lambda net: net(X).mean())
    torch.testing.assert_close(search.supernet.derived({"a": "skip"})(X), X)


def test_a_skip_whose_output_is_changed_in_place_gives_a_copy():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Choice({"layer": Layer("tuple"), "skip": Skip()}, name="a")
            self.head = nn.Linear(WIDTH, 2)

        def forward(self, x):
            h = x + 0.0
            y, _ = self.layer(h, scale=1.0)
            y += 1.0
            return self.head(y * h)

    search = Search(Adds())
    search.step(lambda net: net(X).mean())
    network = search.supernet.derived({"a": "skip"})
    torch.testing.assert_close(network(X), search.supernet.net.head((X + 1) * X))


def test_a_store_that_all_operations_write_into_is_refused():
    class Store:
        def __init__(self):
            self.kept = {}

    class Writes(nn.Linear):
        def forward(self, x, store=None):
            if store is not None:
                store.kept["x"] = x + 1
            return super().forward(x)

    choice = Choice({"a": Writes(WIDTH, WIDTH), "b": Writes(WIDTH, WIDTH)}, name="a")
    choice(X, store=None)
    with pytest.raises(ValueError, match=r"'a' .*writes into the Store that it is given"):
        choice(X, store=Store())


def test_a_skip_alone_passes_its_first_argument_on():
    assert Skip()(X, 3) is X
    assert Skip()(x=X) is X
    with pytest.raises(ValueError, match="without arguments"):
        Skip()()
