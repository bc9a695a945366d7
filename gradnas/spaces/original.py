"""Weights of the original DARTS repository for our networks.

(quark0/darts, `cnn/model.py` and `rnn/model.py`.) Its derived convolutional networks, CIFAR and
ImageNet, have the same tensors as ours of the same shapes, under other names: the modules of an
operation lie below `op` where the original wraps them in a class of its own, and the two
convolutions of a factorized reduction are `conv_1` (even pixels) and `conv_2` (odd ones). Its
recurrent model has the same matrices too, each node's by itself, and the embedding a second time as
the decoder.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradnas.spaces.cells.conv_network import ConvCellNetwork, ConvNetwork
from gradnas.spaces.operations import FactorizedReduce
from gradnas.spaces.recurrent.recurrent_network import RecurrentNetwork

_HALVES = {"conv_even": "conv_1", "conv_odd": "conv_2", "bn": "bn"}
# The sequences of layers that the original has
_PREPROCESSING: list[type] = [nn.ReLU, nn.Conv2d, nn.BatchNorm2d]
_CONVOLUTIONS: list[type] = [nn.ReLU, nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]  # dilated; 7x1-1x7
_SEPARABLE = 2 * _CONVOLUTIONS
_AUXILIARY = "auxiliary_head."
_COUNTER = "num_batches_tracked"  # BatchNorm has it since torch 0.4.1; the released files are older


def load_original_weights(
    network: ConvNetwork | RecurrentNetwork, state_dict: Mapping[str, Tensor]
) -> None:
    """Copy the tensors of the original authors' state dict into `network`: all, or in error none.

    Tensors are converted to the network's device and floating-point type. Released files that come
    from torch 0.3 lack BatchNorm's `num_batches_tracked`: those of the network stay as they are.
    Names that all begin with `module.` (`DataParallel`) are accepted. ImageNet weights whose
    auxiliary head has one BatchNorm more (P-DARTS, SGAS, DARTS-, and others) are loaded without the
    head, with a warning.

    Args:
        network: of the genotype, channels, cells, stem, classes and auxiliary head that the file
            was made with, or of the recurrent genotype, sizes and vocabulary.
        state_dict: what `torch.load(path, map_location="cpu", weights_only=True)` gives for a CIFAR
            file, and its entry `["state_dict"]` for an ImageNet checkpoint.

    Raises:
        ValueError: missing, surplus or misshapen tensors (by their original names), a whole
            checkpoint, an auxiliary head on one side only, a network of another class or with
            operations that the original does not have.
    """
    if not isinstance(network, (ConvNetwork, RecurrentNetwork)):
        raise ValueError(
            "original weights fit a ConvNetwork or a RecurrentNetwork, "
            f"not a {type(network).__name__}; build one with "
            "gradnas.ConvCell(...).network(genotype) or "
            "gradnas.RecurrentCell(...).network(genotype)"
        )
    given = _without_prefix(state_dict)
    if isinstance(network, RecurrentNetwork):
        targets = _recurrent_targets(network)
        _check(targets, given, "the genotype's number of nodes, hidden size and vocabulary")
        if not torch.equal(given["decoder.weight"], given["encoder.weight"]):
            raise ValueError(
                "decoder.weight differs from encoder.weight: the original ties them, and so does "
                "this network"
            )
    else:
        targets = _convolutional_targets(network)
        if _has_larger_head(network, given):
            targets = _without_head(targets)
            given = _without_head(given)
            warnings.warn(
                "the auxiliary head of these weights has one BatchNorm more than that of DARTS on "
                "ImageNet (as in P-DARTS, SGAS and others): everything else was loaded, and a head "
                "of this network keeps the weights that it has; it serves training alone",
                stacklevel=2,
            )
        else:
            _check_auxiliary(network, given)
        _check(targets, given, "the genotype, channels, cells, stem and classes")
    # Every conversion before the first copy: whatever fails, fails while the network is as it was.
    converted: list[tuple[Tensor, Tensor]] = []
    for original, target in targets.items():
        if original in given:  # a counter of BatchNorm may be missing
            source = given[original].detach().to(target.device, target.dtype)
            converted.append((target, source))
    with torch.no_grad():
        for target, source in converted:
            target.copy_(source)


def _convolutional_targets(network: ConvNetwork) -> dict[str, Tensor]:
    """Original name -> our tensor."""
    ours = network.state_dict()
    targets = {}
    for own, original in original_names(network).items():
        targets[original] = ours[own]
    return targets


def _recurrent_targets(network: RecurrentNetwork) -> dict[str, Tensor]:
    """Original name -> the part of our tensors that it is."""
    ours = network.state_dict()
    targets = {
        "encoder.weight": ours["embedding.weight"],
        "decoder.weight": ours["embedding.weight"],  # tied
        "decoder.bias": ours["decoder_bias"],
        "rnns.0._W0": ours["first_weight"],
    }
    for k, matrix in enumerate(ours["node_weights"]):
        targets[f"rnns.0._Ws.{k}"] = matrix
    return targets


def original_names(network: ConvNetwork) -> dict[str, str]:
    """Our name -> original name for every tensor of `network.state_dict()`.

    Raises:
        ValueError: an operation that the original repository does not have.
    """
    names = {name: name for name in network.state_dict()}  # stems and heads are called the same
    for index, cell in enumerate(network.cells):
        assert isinstance(cell, ConvCellNetwork)
        here = f"cells.{index}"
        modules: list[tuple[str, str, nn.Module]] = [  # our name, theirs
            (f"{here}.preprocess0", f"{here}.preprocess0", cell.preprocess0),
            (f"{here}.preprocess1", f"{here}.preprocess1", cell.preprocess1),
        ]
        for k, module in enumerate(cell.operations):
            modules.append((f"{here}.operations.{k}", f"{here}._ops.{k}", module))
        for own, original, module in modules:
            for name, theirs in _names_within(module, own).items():
                names[f"{own}.{name}"] = f"{original}.{theirs}"
    return names


def _names_within(module: nn.Module, where: str) -> dict[str, str]:
    """Our name -> original name for the tensors of one preprocessing or operation, within it."""
    names = list(module.state_dict())
    if not names:
        return {}
    if isinstance(module, FactorizedReduce):
        renamed = {}
        for name in names:
            half, _, tensor = name.partition(".")
            renamed[name] = f"{_HALVES[half]}.{tensor}"
        return renamed
    layers = list(module) if isinstance(module, nn.Sequential) else []
    # DilatedConv2d is a Conv2d that the original does not know.
    kinds = [nn.Conv2d if isinstance(layer, nn.Conv2d) else type(layer) for layer in layers]
    if kinds not in (_PREPROCESSING, _CONVOLUTIONS, _SEPARABLE):
        raise ValueError(
            f"{where} is not an operation of the original repository, so it has no original weights"
        )
    # 7x1-1x7 is a bare sequence there; every other operation is a class that holds its sequence as
    # `op`.
    is_bare = isinstance(layers[1], nn.Conv2d) and layers[1].kernel_size == (1, 7)
    return {name: name if is_bare else f"op.{name}" for name in names}


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefix of `DataParallel`; ValueError for what is no state dict."""
    if not isinstance(state_dict, Mapping):
        raise ValueError(
            f"a state dict (tensors by name) is needed, not a {type(state_dict).__name__}"
        )
    if "state_dict" in state_dict:
        raise ValueError(
            'this is a whole checkpoint, not a state dict: pass its entry "state_dict"'
        )
    for name, tensor in state_dict.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(
                f"a state dict holds tensors by name, but its entry {name!r} "
                f"is a {type(tensor).__name__}"
            )
        if tensor.is_meta:
            raise ValueError(
                f"the tensor {name!r} is on the device 'meta' and holds no data: load it to 'cpu'"
            )
    prefix = "module."
    if state_dict and all(name.startswith(prefix) for name in state_dict):
        return {name[len(prefix) :]: tensor for name, tensor in state_dict.items()}
    return dict(state_dict)


def _has_larger_head(network: ConvNetwork, given: Mapping[str, Tensor]) -> bool:
    """Whether these are ImageNet weights whose head ends in a BatchNorm, which DARTS left out."""
    is_imagenet = hasattr(network, "stem0")
    return is_imagenet and f"{_AUXILIARY}features.6.running_mean" in given


def _without_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: own for name, own in tensors.items() if not name.startswith(_AUXILIARY)}


def _check_auxiliary(network: ConvNetwork, given: Mapping[str, Tensor]) -> None:
    network_has = network.auxiliary_head is not None
    weights_have = any(name.startswith(_AUXILIARY) for name in given)
    if weights_have and not network_has:
        raise ValueError(
            "these weights have an auxiliary head and the network has none: build the network "
            "with auxiliary=True, or leave out the tensors whose names begin with "
            f"{_AUXILIARY!r}"
        )
    # Of no weights at all `_check` says more.
    if network_has and not weights_have and given:
        raise ValueError(
            "the network has an auxiliary head and these weights have none: build the network "
            "with auxiliary=False"
        )


def _check(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], settings: str) -> None:
    """ValueError unless the two have the same names (BatchNorm's counters aside) and shapes.

    `settings` are those that must be as they were when the weights were made.
    """
    missing = []
    misshapen = []
    for name, tensor in expected.items():
        if name not in given:
            if not name.endswith(_COUNTER):
                missing.append(name)
        elif not _alike(given[name], tensor):
            misshapen.append(name)
    surplus = [name for name in given if name not in expected]
    problems = []
    if missing:
        problems.append(f"the tensor {missing[0]!r} is missing{_more(missing)}")
    if surplus:
        problems.append(f"there is no place for the tensor {surplus[0]!r}{_more(surplus)}")
    if misshapen:
        name = misshapen[0]
        given_form = _form(given[name])
        needed_form = _form(expected[name])
        problems.append(
            f"the tensor {name!r} is {given_form}, but the network's is {needed_form}"
            f"{_more(misshapen)}"
        )
    if problems:
        advice = f"{settings} must be those the weights were made with"
        if any(".operations." in name or name == "node_weights" for name in given):
            advice = "these names are gradnas's own: use network.load_state_dict"
        listed = "; ".join(problems)
        raise ValueError(
            "these are not the original weights of this network, nothing was loaded: "
            f"{listed}; {advice}"
        )


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


def _form(tensor: Tensor) -> str:
    """`16x3x3x3`, and the type where it is not one of floating-point numbers."""
    form = "x".join(str(size) for size in tensor.shape) or "a single number"
    if not tensor.is_floating_point():
        dtype = str(tensor.dtype).removeprefix("torch.")
        form = f"{form} of {dtype}"
    return form


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
