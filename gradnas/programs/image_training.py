"""Training a derived network from scratch, with the recipes of DARTS (appendix A.2): one program,
top to bottom.

The test images are read once, after the last epoch. Whatever is selected on the way (nothing, by
default: the weights are those of the last epoch) may only look at images held out from the training
set.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed, runs
from gradnas.config import read_object, to_json
from gradnas.data import ImageData, Split, describe, halves
from gradnas.memory import SavedTensors, measured_peak_mib, step_mib
from gradnas.objectives import CrossEntropy
from gradnas.pictures.chains import draw_architecture
from gradnas.precision import autocast, check_precision, cuda_products
from gradnas.programs.evaluation import (
    Means,
    evaluate,
)
from gradnas.progress import Progress
from gradnas.randomness import generator_for, mix, random_state, set_random_state
from gradnas.runs import NonFiniteError
from gradnas.tasks.images.settings import TrainConfig

# streams of random numbers: initial weights; order and augmentation of the batches; random cells
INIT, ORDER, CELLS = 11, 12, 13


def build_network(config: TrainConfig, data: ImageData) -> nn.Module:
    """The freshly initialised network of a training run, a function of the configuration and the
    data's shape alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.seed, INIT))
        return config.space.network(
            config.genotype,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            auxiliary=config.auxiliary,
        )


def _parameter_groups(network: nn.Module, no_decay: str) -> list[dict[str, Any]]:
    """All weights, in one group, or in two of which the second is not decayed."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = {id(p) for norm in norms for p in norm.parameters()} if no_decay != "nothing" else set()
    if no_decay == "norms and biases":
        kept |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    groups = [
        {"params": [p for p in network.parameters() if id(p) not in kept]},
        {"params": [p for p in network.parameters() if id(p) in kept], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Training:
    """The state of a training run: network, optimiser, position; saved and resumed bit for bit."""

    def __init__(self, config: TrainConfig, data: ImageData, device: torch.device) -> None:
        check_precision(config.precision, device)
        self.config, self.data, self.device = config, data, device
        self.network = build_network(config, data).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        distributed.copy_from_main([*self.network.parameters(), *self.network.buffers()])
        self._compiled = self._compile(self.network) if config.compile != "no" else None
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.network, config.no_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        self.objective = CrossEntropy(config.label_smoothing, config.auxiliary_weight)
        train = data.train
        self.valid: Split | None = None
        if config.valid_fraction > 0:
            self.valid, train = halves(train, config.valid_fraction, seed=config.seed)
        self.batches = train.batches(
            config.batch_size,
            augment=config.data.augment,
            shuffle=True,
            seed=mix(config.seed, ORDER),
            device=device,
            rank=distributed.rank(),
            world=distributed.world(),
            workers=config.data.workers,
        )
        self.epoch = self.batch = 0  # the next batch to train on
        self.means = Means()
        self.memory_mib = 0.0
        torch.manual_seed(mix(config.seed, ORDER, distributed.rank()))  # drop path

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "means": self.means.state_dict(),
            "memory_mib": self.memory_mib,
            "random_state": random_state(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch, self.memory_mib = (
            state["epoch"],
            state["batch"],
            state["memory_mib"],
        )
        self.means = Means(state["means"])
        set_random_state(state["random_state"], self.device)

    def _compile(self, network: Any) -> nn.Module:
        """The network compiled for whole batches; the weights are shared with the plain one."""
        config = self.config
        if config.compile == "reduce-overhead" and self.device.type != "cuda":
            raise ValueError(
                f"compile='reduce-overhead' captures CUDA graphs, but the device is {self.device}: use 'default'"
            )
        if config.drop_path > 0:
            network.drop_path_probability = torch.zeros((), device=self.device)
        return torch.compile(network, dynamic=False, mode=config.compile)  # type: ignore[return-value]

    def start_epoch(self) -> None:
        """Set the learning rate and the drop path of the coming epoch."""
        probability = self.config.drop_path * self.epoch / self.config.epochs
        network: Any = self.network
        if self.config.space.has_drop_path:
            if isinstance(network.drop_path_probability, Tensor):
                network.drop_path_probability.fill_(probability)
            else:
                network.drop_path_probability = probability
        self._set_learning_rate()
        self.network.train()

    def _set_learning_rate(self) -> None:
        moment = float(self.epoch)
        if self.config.per_iteration:
            moment += self.batch / len(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(moment)

    def step(self, x_BCHW: Tensor, y_B: Tensor) -> dict[str, Tensor]:
        """One step of SGD. Raises NonFiniteError before an update that would not be finite."""
        self._set_learning_rate()
        # The last batch of an epoch may be smaller: it is not worth a second compilation.
        whole = len(y_B) >= self.config.batch_size // distributed.world()
        network = self._compiled if self._compiled is not None and whole else self.network
        with cuda_products(self.config.precision):
            with autocast(self.config.precision, self.device):
                try:
                    loss, parts = self.objective(network(x_BCHW), y_B)
                except (
                    torch._dynamo.exc.TorchDynamoException
                ) as error:  # only a compiled network raises it
                    reason = str(error).strip().splitlines()[0]
                    raise ValueError(
                        f"torch.compile failed ({reason}); it needs a C++ compiler on the CPU and Triton on CUDA: "
                        "train with compile='no'"
                    ) from error
            loss.backward()
        params = [p for p in self.network.parameters() if p.grad is not None]
        if distributed.world() > 1:
            for p, mean in zip(
                params,
                distributed.mean([p.grad for p in params if p.grad is not None]),
                strict=True,
            ):
                p.grad = mean
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        size = nn.utils.clip_grad_norm_(params, limit)
        if not torch.isfinite(size + loss.detach()):
            raise NonFiniteError(
                f"epoch {self.epoch}, batch {self.batch}: the loss or the gradient is NaN or infinite; the update was "
                "not made. Try a smaller learning rate, precision='fp32', and check the data for NaN"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return parts


def train(
    config: TrainConfig,
    run: runs.Run,
    data: ImageData,
    device: torch.device,
    progress: bool = True,
    title: str = "train",
) -> dict[str, Any]:
    """Run a training to its end, from where its folder stands; writes metrics, weights and results.

    Returns:
        The results: test loss and accuracy, weight counts.

    Raises:
        NonFiniteError: the loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    main = distributed.is_main()
    training = Training(config, data, device)
    state, note = run.load_checkpoint()
    distributed.barrier()
    if state is not None:
        training.load_state_dict(state)
    network, per_epoch = training.network, len(training.batches)
    bar = Progress(
        title, config.epochs, per_epoch, training.epoch, training.batch, progress and main
    )
    with (
        bar,
        runs.Keeper(
            run if main else None, training.state_dict, config.checkpoint_seconds
        ) as keeper,
    ):
        if note:
            bar.say(note)
        stopped = False
        while training.epoch < config.epochs and not stopped:
            epoch, began = training.epoch, time.monotonic()
            training.start_epoch()
            for x_BCHW, y_B in training.batches.epoch(epoch, start=training.batch):
                if training.batch == 0:
                    with SavedTensors() as kept:
                        parts = training.step(x_BCHW, y_B)
                    training.memory_mib = step_mib(kept, network, [training.optimizer])
                else:
                    parts = training.step(x_BCHW, y_B)
                training.means.add(parts, len(y_B))
                training.batch += 1
                bar.step(**parts)
                stopped = (
                    config.max_steps is not None
                    and epoch * per_epoch + training.batch >= config.max_steps
                )
                if stopped:
                    break
                if training.batch < per_epoch:
                    keeper.after_step()
            record = _finish_epoch(training, epoch)
            if main:
                run.append(runs.METRICS, record)
                seconds = time.monotonic() - began
                run.append(
                    runs.TIMINGS,
                    {
                        "epoch": epoch,
                        "seconds": seconds,
                        "measured_peak_memory_mib": measured_peak_mib(device),
                    },
                )
            bar.epoch(epoch, {k: v for k, v in record.items() if k.endswith(("loss", "accuracy"))})
            keeper.after_step()
        keeper.save()
    results = _finish(training, run)
    if config.random_cells:
        results["random_cells"] = train_random_cells(
            config,
            run,
            lambda own, folder: start_training(own, folder, device),
            lambda own, child, title: train(own, child, data, device, progress, title),
        )
        if main:
            runs.write_json(run.path / runs.RESULTS, results)
    if main:
        run.set_status("finished")
    return results


def train_random_cells(
    config: Any,
    run: runs.Run,
    start: Callable[[Any, Path], Any],
    train_one: Callable[[Any, runs.Run, str], dict[str, Any]],
    measures: tuple[str, str] = ("test_accuracy", "test_accuracies"),
) -> dict[str, Any]:
    """Train cells drawn at random in the same way; those already finished are not trained again.

    Args:
        config: of the training, with `space`, `genotype`, `random_cells`, `seed`.
        start: makes a run folder for a configuration.
        train_one: runs a training in its folder, under a title, and returns its results.
        measures: what is compared, in the singular and the plural.
    """
    values, genotypes = [], []
    for k in range(config.random_cells):
        genotype = config.space.random_decision(generator_for(config.seed, CELLS, k))
        own = replace(config, genotype=genotype, random_cells=0)
        folder = run.path / "random" / str(k)
        if distributed.is_main() and not (folder / runs.CONFIG).exists():
            start(own, folder)
        distributed.barrier()
        child = runs.Run(folder)
        finished = child.status().get("status") == "finished"
        title = f"random cell {k + 1}/{config.random_cells}"
        results = read_object(folder / runs.RESULTS) if finished else train_one(own, child, title)
        values.append(results[measures[0]])
        genotypes.append(genotype.to_text())
    return {
        measures[1]: values,
        f"mean_{measures[0]}": statistics.fmean(values),
        f"std_{measures[0]}": statistics.stdev(values) if len(values) > 1 else 0.0,
        "genotypes": genotypes,
    }


def _finish_epoch(training: Training, epoch: int) -> dict[str, Any]:
    """Metrics of the epoch that ends, and the position moved to the next."""
    config = training.config
    record: dict[str, Any] = {
        "epoch": epoch,
        "lr": training.optimizer.param_groups[0]["lr"],
        **training.means.values("train_"),
    }
    if training.valid is not None:
        training.network.eval()
        record.update(
            {f"valid_{k}": v for k, v in _evaluate_split(training, training.valid).items()}
        )
    record["drop_path"] = config.drop_path * epoch / config.epochs
    record["peak_memory_mib"] = training.memory_mib
    training.epoch, training.batch, training.means = epoch + 1, 0, Means()
    return record


def _evaluate_split(training: Training, split: Split) -> dict[str, float]:
    batches = split.batches(
        max(training.config.batch_size, 128),
        shuffle=False,
        device=training.device,
        workers=training.config.data.workers,
    )
    return evaluate(training.network, batches.epoch(0), training.config.precision)


def _finish(training: Training, run: runs.Run) -> dict[str, Any]:
    network, config = training.network, training.config
    network.eval()
    test = _evaluate_split(training, training.data.test)
    head = getattr(network, "auxiliary_head", None)
    counted = sum(p.numel() for p in network.parameters())
    auxiliary = sum(p.numel() for p in head.parameters()) if head is not None else 0
    results = {
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "num_test_images": len(training.data.test),
        "num_params": counted - auxiliary,
        "num_auxiliary_params": auxiliary,
        "genotype": config.genotype.to_text(),
        "epochs": config.epochs,
        "data": describe(training.data),
    }
    if distributed.is_main():
        run.save_tensors(runs.WEIGHTS, dict(network.state_dict()), {"format": "gradnas-weights"})
        runs.write_json(run.path / runs.RESULTS, results)
    return results


def load_trained(run: runs.Run, config: TrainConfig) -> nn.Module:
    """The trained network of a finished run, in eval mode, on the CPU; `results.json` says what
    images it wants.

    Raises:
        ValueError: no weights yet, or weights of another network (names the first tensor that does
            not fit).
    """
    if not (run.path / runs.WEIGHTS).exists():
        raise ValueError(
            f"{run.path} holds no trained weights yet; finish it with: gradnas resume {run.path}"
        )
    data = read_object(run.path / runs.RESULTS).get("data")
    if data is None:
        raise ValueError(
            f"{run.path / runs.RESULTS} does not say what images the network was trained on ('data')"
        )
    network = config.space.network(
        config.genotype, data["num_classes"], data["in_channels"], auxiliary=config.auxiliary
    )
    try:
        network.load_state_dict(run.load_tensors(runs.WEIGHTS))
    except RuntimeError as error:
        raise ValueError(
            f"{run.path / runs.WEIGHTS} does not fit its configuration: {error}"
        ) from error
    return network.eval()


def start_training(config: TrainConfig, path: str | Path, device: torch.device) -> runs.Run:
    """Make the run folder of a training: configuration, environment, genotype, picture."""
    run = runs.Run.create(path, to_json(config), config.seed, device)
    genotype = config.genotype
    genotype.save(run.path / runs.GENOTYPE)
    draw_architecture(genotype, run.path / runs.PICTURE, space=config.space)
    return run
