"""What `golden.py` does in Python: the library by its public names."""

from __future__ import annotations

from typing import Any

import torch
from golden_contents import tree_hash
from golden_forks import Golden
from golden_inputs import pseudo

import gradnas


def library(g: Golden) -> None:
    """The library in Python, by its public names."""
    g.call("library-module", own_module)
    g.call("library-gradients", toy_gradients)
    g.call("library-laws", own_laws)
    g.call("library-spaces", spaces)


def own_module() -> None:
    """A search in a module with choices, with each relaxation and gradient."""
    from torch import nn

    torch.manual_seed(1)
    x = torch.randn(48, 1, 6, 6)
    y = torch.randint(3, (48,))
    batches = [(x[k : k + 12], y[k : k + 12]) for k in range(0, 48, 12)]

    def net() -> nn.Module:
        torch.manual_seed(2)
        first = {"conv3": nn.Conv2d(1, 4, 3, padding=1), "conv1": nn.Conv2d(1, 4, 1)}
        second = {"wide": nn.Conv2d(4, 4, 5, padding=2), "skip": nn.Identity()}
        second |= {"pool": nn.AvgPool2d(3, 1, 1)}
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        one = gradnas.Choice(first, name="first")
        two = gradnas.Choice(second, name="second")
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
