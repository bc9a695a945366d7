"""A training on images, with the recipes of DARTS (appendix A.2).

The test images are read once, after the last epoch. Whatever is selected on the way (nothing, by
default: the weights are those of the last epoch) may only look at images held out from the training
set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.data import Batches, ImageData, Split, describe, halves
from gradnas.objectives import CrossEntropy
from gradnas.precision import check_precision
from gradnas.randomness import seed_for
from gradnas.runs import Record
from gradnas.spaces.blocks.accelerate import accelerate
from gradnas.tasks.batched import BatchedTraining
from gradnas.tasks.images.evaluation import ImageBatch, ImageCalls
from gradnas.tasks.images.search import SMALLEST_HELD_OUT_BATCH
from gradnas.tasks.images.settings import TrainConfig

# Streams of random numbers.
INIT = 11  # initial weights
ORDER = 12  # order and augmentation


class ImageTraining(ImageCalls, BatchedTraining[TrainConfig, ImageBatch]):
    """A training of an image classifier.

    Args:
        network: another than that of the configuration, with the same calls.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: ImageData,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> None:
        check_precision(config.precision, device)
        network = build_network(config, data) if network is None else network
        network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.copy_from_main([*network.parameters(), *network.buffers()])
        has_kernels = config.accelerated and device.type == "cpu"
        self._accelerated = accelerate(network) if has_kernels else network
        self._compiled = None
        if config.compile != "no":
            self._compiled = _compiled(network, config, device)
        optimizer = torch.optim.SGD(
            parameter_groups(network, config.no_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            # All weights in one call, where there are kernels: hundreds of small ones take four
            # times as long. A checkpoint of an earlier version goes on as it began.
            fused=True if has_kernels else None,
        )
        train_split = data.train
        valid_split: Split | None = None
        if config.valid_fraction > 0 and data.validation is not None:
            valid_split = data.validation
        elif config.valid_fraction > 0:
            valid_split, train_split = halves(train_split, config.valid_fraction, seed=config.seed)

        def held_out(split: Split) -> Callable[[], Batches]:
            size = max(config.batch_size, SMALLEST_HELD_OUT_BATCH)
            workers = config.data.workers
            return lambda: split.batches(size, shuffle=False, device=device, workers=workers)

        train = train_split.batches(
            config.batch_size,
            augment=config.data.augment,
            shuffle=True,
            seed=seed_for(config.seed, ORDER),
            device=device,
            rank=distributed.rank(),
            world=distributed.world(),
            workers=config.data.workers,
        )
        super().__init__(
            config,
            network,
            optimizer,
            device,
            train,
            valid=None if valid_split is None else held_out(valid_split),
            test=held_out(data.test),
        )
        self.data = data
        self.train_objective = CrossEntropy(config.label_smoothing, config.auxiliary_weight)
        self.objective = CrossEntropy()
        torch.manual_seed(seed_for(config.seed, ORDER, distributed.rank()))  # drop path

    # -- losses --

    def outputs(self, net: Callable[..., Any], batch: ImageBatch) -> Any:
        try:
            return super().outputs(net, batch)
        except torch._dynamo.exc.TorchDynamoException as error:  # only a compiled network raises it
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"torch.compile failed ({reason}); it needs a C++ compiler on the CPU and Triton "
                "on CUDA: train with compile='no'"
            ) from error

    # -- steps --

    def start_epoch(self) -> None:
        probability = self._drop_path()
        network: Any = self.network
        if self.config.space.has_drop_path:
            if isinstance(network.drop_path_probability, Tensor):  # of a compiled network
                network.drop_path_probability.fill_(probability)
            else:
                network.drop_path_probability = probability
        super().start_epoch()

    def _drop_path(self) -> float:
        """Probability of dropping a path in this epoch: it grows from 0 (DARTS appendix A.2)."""
        return self.config.drop_path * self.epoch / self.config.epochs

    def set_learning_rate(self) -> None:
        moment = float(self.epoch)
        if self.config.per_iteration:
            moment += self.place.batch / len(self.train)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(moment)

    def network_for(self, batch: ImageBatch) -> Callable[..., Any]:
        # The last batch of an epoch may have another size: it is not worth a second compilation.
        share, num_larger = divmod(self.config.batch_size, distributed.world())
        is_whole = len(batch[1]) in (share, share + bool(num_larger))
        if self._compiled is not None:
            return self._compiled if is_whole else self.network
        return self._accelerated

    # -- epochs --

    def more_metrics(self) -> Record:
        return {"drop_path": self._drop_path()}

    def results(self) -> Record:
        test = self.evaluated(self.test())
        head = getattr(self.network, "auxiliary_head", None)
        num_auxiliary = 0 if head is None else num_params(head)
        return {
            "test_accuracy": test["accuracy"],
            "test_loss": test["loss"],
            "num_test_images": len(self.data.test),
            "num_params": num_params(self.network) - num_auxiliary,
            "num_auxiliary_params": num_auxiliary,
            "genotype": self.config.genotype.to_text(),
            "epochs": self.config.epochs,
            "data": describe(self.data),
        }


Group = dict[str, list[nn.Parameter] | float]  # weights with one setting of the optimiser


def build_network(config: TrainConfig, data: ImageData) -> nn.Module:
    """The freshly initialised network of a training run.

    It is a function of the configuration and the data's shape alone.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed_for(config.seed, INIT))
        return config.space.network(
            config.genotype,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            auxiliary=config.auxiliary,
        )


def num_params(module: nn.Module) -> int:
    """Weights of a module."""
    return sum(p.numel() for p in module.parameters())


def parameter_groups(network: nn.Module, no_decay: str) -> list[Group]:
    """All weights, in one group, or in two of which the second is not decayed."""
    kept: set[int] = set()
    if no_decay != "nothing":
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                kept |= {id(p) for p in module.parameters()}
    if no_decay == "norms and biases":
        kept |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    groups: list[Group] = [
        {"params": [p for p in network.parameters() if id(p) not in kept]},
        {"params": [p for p in network.parameters() if id(p) in kept], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _compiled(network: Any, config: TrainConfig, device: torch.device) -> nn.Module:
    """The network compiled for whole batches; the weights are shared with the plain one."""
    if config.compile == "reduce-overhead" and device.type != "cuda":
        raise ValueError(
            f"compile='reduce-overhead' captures CUDA graphs, but the device is {device}: use "
            "'default'"
        )
    if config.drop_path > 0:
        # A number would be compiled in; a tensor can change from epoch to epoch.
        network.drop_path_probability = torch.zeros((), device=device)
    return torch.compile(network, dynamic=False, mode=config.compile)  # type: ignore[return-value]
