"""What a predictor may know about a unit: sizes, and counts of the layers within."""

from __future__ import annotations

import math

from torch import Tensor, nn

from gradnas.latency.recorder import Call, tensors_in


def features_of(call: Call) -> dict[str, float]:
    """Sizes and counts of layers; `{}` for a rest, which no predictor should guess.

    Sizes are numbers of values, of the whole batch. The first input and the first output stand for
    all where a shape is asked for.
    """
    if call.rest:
        return {}
    inputs = list(tensors_in((call.args, call.kwargs)))
    outputs = list(tensors_in(call.output))
    channels_in = _channels(inputs)
    kernel = 1
    widest = 0  # channels of any layer
    for module in call.module.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            kernel = max(kernel, *module.kernel_size)
            widest = max(widest, module.out_channels)
    sizes = {
        "inputs": sum(t.numel() for t in inputs),
        "outputs": sum(t.numel() for t in outputs),
        "channels_in": channels_in,
        "channels_out": _channels(outputs),
        "kernel": kernel,
        "stride": (_pixels(inputs) / max(1, _pixels(outputs))) ** 0.5,
        "expansion": (widest or channels_in) / channels_in,
        "skip": float(_keeps_shape(inputs, outputs)),
        "params": sum(p.numel() for p in call.module.parameters()),
    }
    return sizes | _layers(call)


def _channels(tensors: list[Tensor]) -> int:
    if not tensors or tensors[0].dim() < 2:
        return 1
    return tensors[0].shape[1]


def _pixels(tensors: list[Tensor]) -> int:
    if not tensors:
        return 1
    return math.prod(tensors[0].shape[2:])


def _keeps_shape(inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    if not inputs or not outputs:
        return False
    return inputs[0].shape == outputs[0].shape


def _layers(call: Call) -> dict[str, float]:
    """How many layers of each type run within, what they write, what they multiply.

    Found by one more pass: layers that are there need not run, and may run twice.
    """
    seen = {
        "convolutions": 0.0,
        "depthwise": 0.0,
        "linear": 0.0,
        "norms": 0.0,
        "others": 0.0,
        "written": 0.0,
        "pointwise_macs": 0.0,
        "depthwise_macs": 0.0,
        "other_macs": 0.0,
    }

    def leave(module: nn.Module, args: object, output: object) -> None:
        del args
        written = sum(t.numel() for t in tensors_in(output))
        kind = "others"
        if isinstance(module, nn.modules.conv._ConvNd):
            is_depthwise = module.groups > 1 and module.groups == module.in_channels
            kind = "depthwise" if is_depthwise else "convolutions"
            # Three kinds of multiply-adds, since devices run them at very different speeds.
            multiplied = "other_macs"
            if is_depthwise:
                multiplied = "depthwise_macs"
            elif max(module.kernel_size) == 1:
                multiplied = "pointwise_macs"
            seen[multiplied] += written * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            kind = "linear"
            seen["pointwise_macs"] += written * module.in_features
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            kind = "norms"
        seen[kind] += 1
        seen["written"] += written

    handles = []
    for module in call.module.modules():
        is_layer = not list(module.children())
        if is_layer:
            handles.append(module.register_forward_hook(leave))
    try:
        call.module(*call.args, **call.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
