"""What a search cannot work with: refused when it is made, with the reason."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gradnas.gradients import ArchitectureGradient, Reinforce
from gradnas.objectives import ExpectedCost
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import Relaxation
from gradnas.search.rewards import check_samples

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
NUM_NAMED = 3  # of many names, an error gives so many


def check_network(net: nn.Module) -> None:
    """ValueError for a network that a search cannot follow, whatever its choices."""
    refuse_wrapped(net)
    for path, module in net.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
            raise ValueError(
                f"{path!r} ({type(module).__name__}) has sparse=True, and torch does not take the "
                "norm of sparse gradients, by which a search clips them and sees whether they are "
                "finite: leave sparse out"
            )
        if isinstance(module, torch.jit.ScriptModule) and module.state_dict():
            raise ValueError(
                f"{path!r} ({type(module).__name__}) is a module of TorchScript, which keeps its "
                "weights where a search cannot put others for one pass: give the module that was "
                "scripted, and script the network that is found"
            )
        for tensor in [*module._parameters.values(), *module._buffers.values()]:
            if tensor is None:
                continue
            if is_lazy(tensor):
                raise ValueError(
                    f"{path!r} ({type(module).__name__}) does not know its shape yet: run the "
                    "network once on a batch before the search is made"
                )
            if tensor.is_inference():
                raise ValueError(
                    f"{path!r} ({type(module).__name__}) was made within torch.inference_mode(), "
                    "and torch records no gradients of such tensors: make the network outside"
                )


def check_gradients(what: str = "a search") -> None:
    """ValueError where torch records no gradients, without which nothing learns.

    Args:
        what: needs them, in the sentence.
    """
    if torch.is_inference_mode_enabled():
        switch = "torch.inference_mode()"
    elif not torch.is_grad_enabled():
        switch = "torch.no_grad() or torch.set_grad_enabled(False)"
    else:
        return
    raise ValueError(
        f"gradients are switched off here ({switch}), and {what} needs them: call it outside of "
        "that"
    )


def refuse_wrapped(net: nn.Module) -> None:
    """ValueError where the network is spread over devices by something else than the search."""
    for path, module in net.named_modules():
        if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            what = f"{path!r} of the network is" if path else "the network is"
            raise ValueError(
                f"{what} an nn.{type(module).__name__}, whose replicas or gradients a search "
                "cannot follow: give the plain module (it is in .module), and for several devices "
                "start one process for each with torchrun; the search averages over them itself"
            )


def check_methods(
    relaxation: object, gradient: object, terms: object, stabilizers: object, cost: object
) -> None:
    """ValueError where one of these is another thing: its class, its name, one without a list."""
    for what, given, kind, such in (
        ("relaxation", relaxation, Relaxation, "Softmax()"),
        ("gradient", gradient, ArchitectureGradient, "FirstOrder()"),
    ):
        if not isinstance(given, kind):
            raise ValueError(
                f"{what} must be an object such as {such}, or of a class of your own below "
                f"gradnas.{kind.__name__}, not {given!r}"
            )
    for what, given in (("terms", terms), ("stabilizers", stabilizers)):
        if not isinstance(given, Iterable):
            raise ValueError(f"{what} must be a list of them, {what}=[...], not {given!r}")
    if cost is not None and not isinstance(cost, ExpectedCost):
        raise ValueError(f"cost must be an ExpectedCost, such as with a budget, not {cost!r}")


def check_combination(
    relaxation: Relaxation, gradient: ArchitectureGradient, alphas: AlphaOptimizer
) -> None:
    """ValueError where these do not go together, with the reason."""
    if gradient.differentiates_twice and relaxation.once_differentiable:
        raise ValueError(
            f"{type(gradient).__name__} needs second derivatives, which "
            f"{type(relaxation.innermost).__name__} does not have; use FirstOrder(), "
            "Unrolled(mode='finite_difference') or Reinforce()"
        )
    # A relaxation asks for certain settings of Adam where its own rule corrects the update; under
    # rewards that rule is not applied.
    if not gradient.num_samples:
        relaxation.check_alpha_optimizer(alphas.betas, alphas.weight_decay)
    if gradient.num_samples and relaxation.additions.edge_weights:
        raise ValueError(
            f"{type(gradient).__name__} learns from the probability of what was sampled, and no "
            "edge is sampled: use PartialChannels(edge_normalisation=False)"
        )
    if gradient.num_samples and not isinstance(gradient, Reinforce):
        name = type(gradient).__name__
        raise ValueError(
            f"{name} samples networks (num_samples is {gradient.num_samples}), which a search does "
            f"for Reinforce and for classes made from it: make {name} a subclass of "
            "gradnas.Reinforce with an estimate() of its own, or let num_samples be 0 and "
            "differentiate the losses that it is called with"
        )
    check_samples(relaxation, gradient)


# ---- optimisers ----------------------------------------------------------------------------------


def check_settings(weights: Any, alphas: Any) -> None:
    """ValueError where what is given as `weights` or `alphas` are no settings of optimisers."""
    if isinstance(weights, torch.optim.Optimizer):
        name = type(weights).__name__
        raise ValueError(
            f"weights is an optimiser ({name}), and the search makes its own from its parameters: "
            f"give a function, weights=lambda params: torch.optim.{name}(params, ...)"
        )
    if not isinstance(weights, WeightOptimizer) and not callable(weights):
        raise ValueError(
            "weights must be a WeightOptimizer(...) or a function from parameters to an optimiser, "
            f"not {weights!r}"
        )
    if alphas is not None and not isinstance(alphas, AlphaOptimizer):
        raise ValueError(
            "alphas must be AlphaOptimizer(lr=..., betas=..., weight_decay=...), the settings of "
            f"Adam on the alphas, not {alphas!r}"
        )


def made_optimizer(
    make: MakeOptimizer, params: Mapping[str, nn.Parameter], alphas: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """The user's optimiser of the weights.

    Raises:
        ValueError: it is none, needs a closure, or does not have exactly the weights.
    """
    optimizer = make(list(params.values()))
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            "the function given as weights must return a torch.optim.Optimizer, not "
            f"{type(optimizer).__name__}"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} evaluates the loss several times in a step (it needs a "
            "closure), which the step of a search does not do: use an optimiser such as "
            "torch.optim.SGD or torch.optim.AdamW"
        )
    held: dict[int, Tensor] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            held[id(p)] = p

    for name, alpha in alphas.items():
        if id(alpha) in held:
            raise ValueError(
                f"the optimiser of the weights was given the alpha of choice {name!r}: give it the "
                "parameters that the function is called with"
            )
    left_out = [name for name, p in params.items() if id(p) not in held]
    if left_out:
        raise ValueError(
            f"the optimiser of the weights was not given {_listed(left_out)}, which would never "
            "move: give it all parameters that the function is called with, and freeze with "
            "requires_grad_(False), before the search is made, what is to stay"
        )
    known = {id(p) for p in params.values()}
    foreign = [p for p in held.values() if id(p) not in known and p.requires_grad]
    if foreign:
        shapes = ", ".join(str(tuple(p.shape)) for p in foreign[:NUM_NAMED])
        raise ValueError(
            f"the optimiser of the weights has {len(foreign)} trainable parameters that are not of "
            f"the network (shapes {shapes}), and a search would never give them a gradient: make "
            "them parameters of the network"
        )
    return optimizer


def check_hooks(params: Mapping[str, Tensor], gradient: ArchitectureGradient) -> None:
    """ValueError for hooks on weights that a search does not run, or looks past."""
    for name, p in params.items():
        if getattr(p, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"the weight {user_name(name)!r} has a hook for after its gradient was accumulated "
                "(register_post_accumulate_grad_hook), which a search never runs: it takes "
                "gradients without accumulating them"
            )
        if p._backward_hooks and gradient.needs_inner_step:
            raise ValueError(
                f"the weight {user_name(name)!r} has a gradient hook (register_hook), which the "
                f"step of the weights runs and {type(gradient).__name__} cannot look through: use "
                "FirstOrder(), or do in the network what the hook does"
            )


def user_name(name: str) -> str:
    """A weight of a supernet as the user knows it, whose module is the supernet's `net`."""
    return name.removeprefix("net.")


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = [repr(user_name(name)) for name in names[:NUM_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


# ---- losses --------------------------------------------------------------------------------------


def scalar(loss: Any, which: str) -> Tensor:
    """The loss; ValueError where it is no scalar tensor. `which` is "train" or "validation"."""
    if isinstance(loss, Tensor) and loss.dim() == 0:
        return loss
    got = f"one of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    advice = ""
    if loss is None:
        advice = " (does the function return it?)"
    elif isinstance(loss, float):
        advice = " (a number has no gradient: leave out .item())"
    raise ValueError(f"the {which} loss must be a scalar tensor, got {got}{advice}")


def no_gradient(which: str, of: str) -> ValueError:
    """The error for a loss that comes without a graph."""
    return ValueError(
        f"the {which} loss has no gradient in the {of}: it was computed without them, or torch did "
        "not record how (detach, no_grad, numpy, torch.tensor(loss))"
    )


# ---- second derivatives --------------------------------------------------------------------------

# What torch says where it cannot differentiate a second time: an operation without a formula, a
# compiled part.
WITHOUT_SECOND = (
    "derivative for",
    "double backward",
    "differentiate twice",
    "donated buffers",
)


def lacks_second(error: Exception) -> bool:
    """Whether torch says that it has no second derivative of something."""
    text = str(error).lower()
    return any(words in text for words in WITHOUT_SECOND)
