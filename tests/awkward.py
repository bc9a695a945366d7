"""Awkward modules of one's own: what users write, and searches went wrong over.

Each is a small factory with an example batch, a loss, and what is expected: it is searched as any
other module, or refused with certain words. `test_awkward` runs them all through every relaxation,
gradient and derivation.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradnas import Choice

BATCH = 6
WIDTH = 4
CLASSES = 3


def vectors(generator: torch.Generator) -> Tensor:
    """`(B, C)`."""
    return torch.randn(BATCH, WIDTH, generator=generator)


def sequences(generator: torch.Generator) -> Tensor:
    """`(B, T, C)`."""
    return torch.randn(BATCH, 5, WIDTH, generator=generator)


def images(generator: torch.Generator) -> Tensor:
    """`(B, C, H, W)`."""
    return torch.randn(BATCH, WIDTH, 5, 5, generator=generator)


@dataclass(frozen=True)
class Awkward:
    """A module, and what a search over it must do.

    Attributes:
        name: of the test.
        make: the module with its choices, freshly made; the same one for the same torch seed.
        example: one batch of inputs.
        refused: words of the ValueError, by the first step or the derivation at the latest; None
            where the module is searched as any other.
        refused_mixed: it is refused only where operations are mixed or probed beside each other;
            a search that runs one at a time has nothing to mix.
        no_second: words of the ValueError for gradients with second derivatives, where torch has
            none for this module.
        no_difference: the same for finite differences, where the weights have too few digits.
        tolerance: relative to the largest entry, of comparisons with plain training.
    """

    name: str
    make: Callable[[], nn.Module]
    example: Callable[[torch.Generator], Tensor] = vectors
    refused: str | None = None
    refused_mixed: bool = False
    no_second: str | None = None
    no_difference: str | None = None
    tolerance: float = 1e-5

    def batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs, and a class for each."""
        generator = torch.Generator().manual_seed(seed)
        x = self.example(generator)
        return x, torch.randint(CLASSES, (BATCH,), generator=generator)

    def loss(self, output: Any, target_B: Tensor) -> Tensor:
        """Of the network's output, `(B, classes)`."""
        return F.cross_entropy(output.float(), target_B)

    def loss_on(self, seed: int) -> Callable[[Any], Tensor]:
        """The loss of a network on one batch."""
        x, target_B = self.batch(seed)
        return lambda net: self.loss(net(x), target_B)


def body(name: str = "body", **more: nn.Module) -> Choice:
    """A choice between a layer, no layer, and what else is given."""
    return Choice({"linear": nn.Linear(WIDTH, WIDTH), "skip": nn.Identity(), **more}, name=name)


def head() -> nn.Linear:
    return nn.Linear(WIDTH, CLASSES)


# ---- one object in two places --------------------------------------------------------------------


class Alias(nn.Module):
    """The idiom of torchvision's users: `self.layer0 = self.base[0]`."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        self.layer0 = self.base[0]
        self.norm = self.base[1]
        self.body = body()
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.base[2](self.norm(self.layer0(x)))))


def layer_twice() -> nn.Module:
    layer = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
    return nn.Sequential(layer, nn.Tanh(), layer, body(), head())


def block_thrice() -> nn.Module:
    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    return nn.Sequential(*nn.ModuleList([block] * 3), body(), head())


def shared_operation() -> nn.Module:
    """One operation in two choices."""
    layer = nn.Linear(WIDTH, WIDTH)
    first = Choice({"shared": layer, "own": nn.Linear(WIDTH, WIDTH)}, name="first")
    second = Choice({"own": nn.Linear(WIDTH, WIDTH), "shared": layer}, name="second")
    return nn.Sequential(first, nn.Tanh(), second, head())


def choice_twice() -> nn.Module:
    choice = body(norm=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)))
    return nn.Sequential(choice, nn.Tanh(), choice, head())


class ChoiceAlias(nn.Module):
    """One choice under two attributes, and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = body()
        self.second = self.first
        self.all = nn.ModuleList([self.first] * 2)
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.tanh(self.first(x)))
        for layer in self.all:
            x = layer(torch.tanh(x))
        return self.head(x)


class Siamese(nn.Module):
    """Two branches of one encoder, the choice inside."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(body(), nn.BatchNorm1d(WIDTH))
        self.right = self.left
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.left(x) * self.right(-x))


class Slice(nn.Module):
    """The first columns of a layer that is shared: a super-kernel."""

    def __init__(self, full: nn.Linear, width: int) -> None:
        super().__init__()
        self.full = full
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.full.weight[: self.width], self.full.bias[: self.width])
        return F.pad(h, (0, self.full.out_features - self.width))


def slices() -> nn.Module:
    full = nn.Linear(WIDTH, 8)
    widths = Choice({str(width): Slice(full, width) for width in (2, 4, 8)}, name="width")
    return nn.Sequential(widths, nn.Linear(8, CLASSES))


class TiedParameters(nn.Module):
    """Two modules, one parameter and one buffer; the layer behind is tied to an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(WIDTH, WIDTH)
        self.body = body(norm=nn.BatchNorm1d(WIDTH))
        self.decode = nn.Linear(WIDTH, WIDTH)
        self.decode.weight = self.encode.weight
        self.decode.bias = self.body.operations["linear"].bias
        self.norm = nn.BatchNorm1d(WIDTH)
        self.norm.running_mean = self.body.operations["norm"].running_mean
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(torch.tanh(self.encode(x)))
        return self.head(self.norm(torch.tanh(self.decode(x))))


# ---- in place ------------------------------------------------------------------------------------


def inplace_inside() -> nn.Module:
    """In place behind a layer of the operation: nobody else sees that tensor."""
    choice = body(act=nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True)))
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), choice, head())


def inplace_operation() -> nn.Module:
    choice = body(preact=nn.Sequential(nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH)))
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), choice, head())


class InplaceConsumer(nn.Module):
    """What follows the choice changes its output: its input too, where it became a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.body = nn.Sequential(body(), nn.ReLU(inplace=True))
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(h + self.body(h))


class InplaceSum(nn.Module):
    """`out += shortcut`, as torchvision's blocks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.body = body()
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        out = self.body(h)
        out += 2 * h
        return self.head(out) + self.head(h * h)


# ---- outputs -------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Attention whose second output is None."""

    def __init__(self) -> None:
        super().__init__()
        heads = {}
        for number in ("1", "2"):
            heads[number] = nn.MultiheadAttention(WIDTH, int(number), batch_first=True)
        self.attend = Choice(heads, name="heads")
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        attended, nothing = self.attend(x, x, x, need_weights=False)
        assert nothing is None
        return self.head(attended.mean(1))


@dataclass
class Features:
    """An output with names."""

    hidden: Tensor
    level: int
    scale: float = 0.5
    extra: Tensor | None = None


class Named(nn.Module):
    """An operation that returns a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Features:
        return Features(torch.tanh(self.layer(x)), level=2)


class DataclassOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Choice({"a": Named(), "b": Named()}, name="body")
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        assert isinstance(features, Features)
        return self.head(features.hidden * features.scale * features.level)


class Pair(NamedTuple):
    value: Tensor
    where: Tensor


class Largest(nn.Module):
    """Its second output is of integers, which no mean makes sense of."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Pair:
        return Pair(*self.layer(x).topk(WIDTH, dim=-1))


class IntegerOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Choice({"a": Largest(), "b": Largest()}, name="body")
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).value)


class ModelOutput(OrderedDict):
    """As in Hugging Face's library: a dictionary of what is not None, and attributes."""

    def __init__(self, hidden: Tensor, states: tuple[Tensor, ...] | None = None) -> None:
        super().__init__()
        self.hidden = hidden
        self.states = states
        self["hidden"] = hidden
        if states is not None:
            self["states"] = states


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> ModelOutput:
        x = torch.tanh(self.layer(x))
        return ModelOutput(x, (x, x * 2))


class ModelOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Choice({"a": Model(), "b": Model()}, name="body")
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        output = self.body(x)
        assert isinstance(output, ModelOutput) and output.hidden is output["hidden"]
        assert output.states is output["states"]
        return self.head(output.hidden + output.states[1])


class PackedOutput(nn.Module):
    """Recurrent layers on sequences of several lengths: their output holds lengths and no order."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"gru": nn.GRU(WIDTH, WIDTH), "rnn": nn.RNN(WIDTH, WIDTH)}
        self.body = Choice(layers, name="body")
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.tensor([5, 4, 4, 3, 2, 1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        output, _ = self.body(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        return self.head(padded.sum(1))


class WithNumber(nn.Module):
    """A layer that says a number beside its output."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.number = number

    def forward(self, x: Tensor) -> tuple[Tensor, float, None]:
        return self.layer(x), self.number, None


class TakesNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = head()

    def forward(self, output: tuple[Tensor, float, None]) -> Tensor:
        x, number, _ = output
        assert isinstance(number, float)
        return self.head(x * number)


def number_output() -> nn.Module:
    choice = Choice({"a": WithNumber(0.5), "b": WithNumber(0.5)}, name="body")
    return nn.Sequential(choice, TakesNumber())


def other_numbers() -> nn.Module:
    choice = Choice({"a": WithNumber(0.5), "b": WithNumber(0.25)}, name="body")
    return nn.Sequential(choice, TakesNumber())


# ---- tensors that a module keeps -----------------------------------------------------------------


class Queries(nn.Module):
    """A view of a parameter goes into the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, WIDTH))
        self.body = body(norm=nn.LayerNorm(WIDTH))
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.queries.expand(len(x), -1)) * x)


class KeptActivation(nn.Module):
    """The last activation stays on the module, for a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.head = head()
        self.map: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.map = torch.tanh(self.body(x))
        return self.head(self.map)


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH))
        other = nn.utils.weight_norm(nn.Linear(WIDTH, WIDTH))
    return nn.Sequential(layer, body(norm=other), head())


# ---- formats and modes ---------------------------------------------------------------------------


def bf16() -> nn.Module:
    return nn.Sequential(Cast(torch.bfloat16), body(), head()).bfloat16()


class Cast(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def norms() -> nn.Sequential:
    layer = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH))
    return nn.Sequential(nn.BatchNorm1d(WIDTH), body(norm=layer), head())


def eval_mode() -> nn.Module:
    return norms().eval()


def frozen_norm() -> nn.Module:
    """One BatchNorm in eval mode with weights that do not learn, another in train mode."""
    net = norms()
    net[0].eval()
    net[0].requires_grad_(False)
    return net


def encoder_layer_eval() -> nn.Module:
    """In eval mode torch has a fast path that reads weights and calls no child."""
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True)
    layer.linear1 = Choice({"a": nn.Linear(WIDTH, 8), "b": nn.Linear(WIDTH, 8)}, name="feed")
    return nn.Sequential(layer, Mean(), head()).eval()


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


# ---- layers --------------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    """A part without a choice, computed again in backward, behind the choice."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.part = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.part, self.body(x), use_reentrant=False))


class CheckpointedFirst(nn.Module):
    """A part before the choice, with BatchNorm and a weight that no module reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.7))
        self.body = body()
        self.head = head()

    def scaled(self, x: Tensor) -> Tensor:
        return self.first(x) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.scaled, x, use_reentrant=False)
        x = torch.tanh(self.body(x))
        return self.head(checkpoint(self.scaled, x, use_reentrant=False))


class RunAgain(torch.autograd.Function):
    """A recomputation of one's own."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(ctx.module(x), x, grads[0])
        return None, grad


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.part = nn.Linear(WIDTH, WIDTH)
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(RunAgain.apply(self.part, torch.tanh(self.body(x))))


# ---- other threads -------------------------------------------------------------------------------


def data_parallel() -> nn.Module:
    return nn.Sequential(nn.DataParallel(nn.Linear(WIDTH, WIDTH)), body(), head())


class InThreads(nn.Module):
    """Runs its choice as the replicas of `nn.DataParallel` run."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return self.head(pool.submit(self.body, x).result())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = {
            "lstm": First(nn.LSTM(WIDTH, WIDTH, batch_first=True)),
            "gru": First(nn.GRU(WIDTH, WIDTH, batch_first=True)),
        }
        self.body = Choice(layers, name="body")
        self.after = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.after(self.body(x))
        return self.head(output.mean(1))


class First(nn.Module):
    """The first output of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Sdpa(nn.Module):
    """torch's own attention function, with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = body("keys")
        self.values = nn.Linear(WIDTH, WIDTH)
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        parts = (x, self.keys(x), self.values(x))
        heads = [part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts]  # (B, H, T, C / H)
        mixed = F.scaled_dot_product_attention(*heads)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


# ---- Python's own containers, hooks --------------------------------------------------------------


class ListBeside(nn.Module):
    """Registered modules that also lie in a plain list and a dictionary, and run from there."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.body = body()
        self.other = body("other")
        self.order = [self.stem, self.body]
        self.by_name = {"other": (self.other,)}
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.order:
            x = torch.tanh(layer(x))
        return self.head(self.by_name["other"][0](x))


class ListOnly(nn.Module):
    """A choice that torch does not see, beside one that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.rest = [body("hidden")]
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rest[0](self.body(x)))


def double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """A hook that changes what the module gives."""
    return 2 * output


def hook_on_operation() -> nn.Module:
    choice = body()
    choice.operations["linear"].register_forward_hook(double)
    return nn.Sequential(choice, head())


class Doubled(Choice):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def forward_of_choice() -> nn.Module:
    operations = {"linear": nn.Linear(WIDTH, WIDTH), "skip": nn.Identity()}
    return nn.Sequential(Doubled(operations, name="body"), head())


def hook_on_choice() -> nn.Module:
    choice = body()
    choice.register_forward_hook(double)
    return nn.Sequential(choice, head())


# The way out where torch has no second derivative, as for attention on the CPU.
ONCE = "finite_difference"

AWKWARD = [
    Awkward("alias", Alias),
    Awkward("layer_twice", layer_twice),
    Awkward("block_thrice", block_thrice),
    Awkward("shared_operation", shared_operation),
    Awkward("choice_twice", choice_twice),
    Awkward("choice_alias", ChoiceAlias),
    Awkward("siamese", Siamese),
    Awkward("slices", slices),
    Awkward("tied_parameters", TiedParameters),
    Awkward("inplace_inside", inplace_inside),
    Awkward("inplace_operation", inplace_operation, refused="'preact'.*in place"),
    Awkward("inplace_consumer", InplaceConsumer),
    Awkward("inplace_sum", InplaceSum),
    Awkward(
        "attention",
        Attention,
        sequences,
        no_second=ONCE,
    ),
    Awkward("dataclass_output", DataclassOutput),
    Awkward("model_output", ModelOutputs),
    Awkward("packed_output", PackedOutput, sequences),
    Awkward("number_output", number_output),
    Awkward(
        "other_numbers", other_numbers, refused=r"'body'.*0\.(5|25).*0\.(5|25)", refused_mixed=True
    ),
    Awkward("integer_output", IntegerOutput, refused="integers", refused_mixed=True),
    Awkward("queries", Queries),
    Awkward("kept_activation", KeptActivation),
    Awkward("old_weight_norm", old_weight_norm),
    Awkward("bf16", bf16, no_difference=r"mode=\"exact\"", tolerance=1e-2),
    Awkward("eval_mode", eval_mode),
    Awkward("frozen_norm", frozen_norm),
    Awkward("encoder_layer_eval", encoder_layer_eval, sequences, no_second=ONCE),
    Awkward("checkpointed", Checkpointed),
    Awkward("checkpointed_first", CheckpointedFirst),
    Awkward("recomputed", Recomputed, refused="'net.part'.*run again in backward"),
    Awkward("data_parallel", data_parallel, refused="DataParallel.*torchrun"),
    Awkward("in_threads", InThreads, refused="thread"),
    Awkward("recurrent", Recurrent, sequences),
    Awkward(
        "sdpa",
        Sdpa,
        sequences,
        no_second=ONCE,
    ),
    Awkward("list_beside", ListBeside),
    Awkward("list_only", ListOnly, refused="nn.ModuleList"),
    Awkward("hook_on_operation", hook_on_operation),
    Awkward("hook_on_choice", hook_on_choice),
    Awkward("forward_of_choice", forward_of_choice, refused="forward of its own"),
]
