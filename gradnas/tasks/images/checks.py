"""What is checked of images and networks before there is a run folder, and when a run goes on."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gradnas import distributed, runs
from gradnas.data import ImageData, describe
from gradnas.memory import (
    SURE_SHARE,
    SURE_SHARE_OF_MIXTURES,
    KeptOnMeta,
    check_fits,
    module_bytes,
)
from gradnas.search.costs import counted_costs
from gradnas.tasks.images.search import divided, example_input, fresh_supernet
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

IMAGES_FILE = runs.IMAGES  # which images the run began with


# ---- the images ----------------------------------------------------------------------------------


def known_images(data: ImageData) -> dict[str, Any]:
    """What is kept of a run's images, to know them again."""
    numbers = {"num_train_images": len(data.train), "num_test_images": len(data.test)}
    return numbers | describe(data)


def check_same_images(before: Mapping[str, Any], data: ImageData, run: str) -> None:
    """ValueError where the network of a run does not fit these images."""
    now = describe(data)
    for key, what in (("num_classes", "classes"), ("in_channels", "channels")):
        if key not in before:
            raise ValueError(f"{run}: {IMAGES_FILE} is damaged: it does not say {key}")
        if before[key] != now[key]:
            raise ValueError(
                f"the images of {data.name} are not those that {run} began with, and its network "
                f"does not fit them: the number of {what} was {before[key]}, and is {now[key]}; "
                "give the right ones with --data"
            )


def check_earlier_images(before: Mapping[str, Any], data: ImageData, run: str) -> None:
    """ValueError where these are not the images of a run that an earlier version began.

    Its folder has no fingerprint of them.
    """
    now = known_images(data)
    for key, value in before.items():
        # A folder that was moved may have another name.
        if key == "name" or key not in now or _alike(value, now[key]):
            continue
        raise ValueError(
            f"the images of {now['name']} are not those that {run} began with: {key} was {value}, "
            f"and is {now[key]}; give the right ones with --data"
        )


def notes_after_search(before: Mapping[str, Any], data: ImageData) -> list[str]:
    """What differs between the images of a search and those of the training that follows it.

    Raises:
        ValueError: they have other classes.
    """
    now = describe(data)
    if list(before["class_names"]) != now["class_names"]:
        raise ValueError(
            f"the search saw the classes {', '.join(before['class_names'])}, but {data.name} has "
            f"{', '.join(data.class_names)}: name the images to train on with --data"
        )
    notes = []
    for key, what in (("image_size", "side in pixels"), ("in_channels", "number of channels")):
        if before[key] != now[key]:
            notes.append(
                f"the {what} of the images was {before[key]} in the search, now {now[key]}"
            )
    if not _alike(before["mean"], now["mean"]) or not _alike(before["std"], now["std"]):
        notes.append("the images are normalised with other numbers than in the search")
    return notes


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return all(_alike(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-7)
    return a == b


# ---- the networks --------------------------------------------------------------------------------


class _NeedsValues(Exception):
    """A network looks at the values of tensors, of which the meta device has none."""


def check_image_search(config: SearchConfig, data: ImageData, device: torch.device) -> None:
    """ValueError for a search whose parts do not fit together, or not into memory.

    Nothing is computed but shapes.
    """
    _check_cutout(config.data.augment.cutout, data)
    train, _ = divided(config, data)
    # Of the supernet that runs here, with all its operations; one path of it keeps less.
    is_whole = config.relaxation.trains_mixtures and not config.checkpoint_cells
    sure_share = SURE_SHARE_OF_MIXTURES if is_whole else 0.0
    try:
        supernet = _meta_supernet(config, data)
        _check_forward(supernet, data, config.batch_size, len(train), device, sure_share)
    except _NeedsValues:
        # A supernet that looks at its alphas: one of its networks has the same shapes.
        some = config.space.random_decision(torch.Generator().manual_seed(0))
        with torch.device("meta"):
            network: nn.Module = config.space.network(some, data.num_classes, data.in_channels)
        _check_forward(network, data, config.batch_size, len(train), device)
    if config.cost is not None:
        with warnings.catch_warnings():  # the search says them again
            warnings.simplefilter("ignore")
            example = example_input(config, data)
            counted_costs(fresh_supernet(config, data), config.cost, example, torch.device("cpu"))


def _check_cutout(cutout: int, data: ImageData) -> None:
    """ValueError where it leaves nothing to see of a quarter of the images or more."""
    side = data.image_size
    # The square hides an image where its centre is one of these rows and one of these columns.
    share = min(max(cutout - side + 1, 0) / side, 1.0) ** 2
    if share >= 0.25:
        raise ValueError(
            f"a cutout of {cutout} pixels hides {share:.0%} of the training images, which have "
            f"{side}x{side}, as a whole: take a recipe for small images, such as digits-eval, or a "
            f"cutout below {side}"
        )


def _meta_supernet(config: SearchConfig, data: ImageData) -> nn.Module:
    try:
        with torch.device("meta"):
            return config.space.supernet(
                data.in_channels, data.num_classes, checkpoint_cells=config.checkpoint_cells
            )
    except RuntimeError as error:
        raise _NeedsValues from error


def check_image_training(
    config: TrainConfig, data: ImageData, device: torch.device | None = None
) -> None:
    """ValueError for a network that does not fit the images or, where one is given, the device.

    Nothing is computed but shapes.
    """
    _check_cutout(config.data.augment.cutout, data)
    num_train = len(data.train)
    if data.validation is None:
        num_train -= int(config.valid_fraction * num_train)
    with contextlib.suppress(_NeedsValues):  # an operation of the user's own: the first step tells
        _check_forward(_on_meta(config, data), data, config.batch_size, num_train, device)


def with_head_that_fits(
    config: TrainConfig, data: ImageData, *, is_chosen: bool
) -> tuple[TrainConfig, list[str]]:
    """The configuration without its auxiliary head where maps have a size that it is not for.

    Args:
        is_chosen: the head was asked for by itself, so it is not left out.

    Returns:
        With it, what is to be said.

    Raises:
        ValueError: the network does not fit the images without the head either, or the head was
            asked for.
    """
    if not config.auxiliary:
        return config, []
    try:
        check_image_training(config, data)
    except ValueError as error:
        plain = replace(config, auxiliary=False)
        check_image_training(plain, data)
        if is_chosen:
            raise
        size = f"{data.image_size}x{data.image_size}"
        return plain, [
            f"trained without the auxiliary head, which does not fit images of {size} pixels "
            f"({_first_half(error)})"
        ]
    return config, []


def _first_half(error: ValueError) -> str:
    first, _, _ = str(error).partition(";")
    return first


def _on_meta(config: TrainConfig, data: ImageData) -> nn.Module:
    with torch.device("meta"):
        return config.space.network(
            config.genotype,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            auxiliary=config.auxiliary,
        )


def _check_forward(
    network: nn.Module,
    data: ImageData,
    batch_size: int,
    num_train: int,
    device: torch.device | None = None,
    sure_share: float = SURE_SHARE,
) -> None:
    """ValueError for a network that does not fit the images or, where one is given, the device.

    Args:
        sure_share: of what this pass keeps for backward, a step keeps so much or more.
    """
    # One image is another case for BatchNorm than several, and no other number is.
    smallest = min(batch_size, num_train) // distributed.world()
    some = min(smallest, 2)
    shape = (some, data.in_channels, data.image_size, data.image_size)
    kept = KeptOnMeta(network)
    try:
        with kept:
            network.train()(torch.zeros(shape, device="meta"))
    except (ValueError, RuntimeError) as error:
        if "more than 1 value per channel" in str(error):
            raise ValueError(
                "a batch has one image only, and BatchNorm needs two where maps have one pixel: "
                "raise --batch-size"
            ) from error
        if isinstance(error, ValueError):
            raise
        is_of_sizes = any(word in str(error).lower() for word in ("size", "shape"))
        if isinstance(error, NotImplementedError) or not is_of_sizes:
            raise _NeedsValues from error
        reason = str(error).splitlines()[0]
        side = f"{data.image_size}x{data.image_size}"
        raise ValueError(f"the network does not fit images of {side} pixels: {reason}") from error
    if device is not None and some:
        needed = 2.0 * module_bytes(network)  # with the gradients
        needed += sure_share * kept.bytes * smallest / some
        advice = "fewer channels or cells, smaller images or a smaller --batch-size need less"
        check_fits(needed, device, "a step", advice)
