"""Choices in models that nobody here wrote, put in by name: those of Hugging Face."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas.choice import Choice

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (the extra dev has it)"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

WIDTH = 32
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}


class Small(nn.Module):
    """A feed-forward block of any width: what its user writes beside the model's own."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, hidden_states):
        return self.down(F.gelu(self.up(hidden_states)))


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(60, (3, 7), generator=torch.Generator().manual_seed(seed))


def images(seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def bert():
    config = transformers.BertConfig(vocab_size=60, intermediate_size=64, **SIZES)
    model = transformers.BertForSequenceClassification(config)
    gradnas.replace(
        model, "bert.encoder.layer.*.attention", lambda old: {"keep": old, "skip": gradnas.Skip()}
    )
    gradnas.replace(
        model,
        "*.intermediate.intermediate_act_fn",
        lambda old: {"gelu": old, "relu": nn.ReLU(), "tanh": nn.Tanh()},
    )
    return gradnas.replace(
        model, "bert.encoder.layer.?", lambda old: {"keep": old, "skip": gradnas.Skip()}
    )


def gpt2():
    config = transformers.GPT2Config(vocab_size=60, n_embd=WIDTH, n_layer=2, n_head=2)
    config.use_cache = False
    model = transformers.GPT2LMHeadModel(config)
    gradnas.replace(model, "*.attn", lambda old: {"keep": old, "skip": gradnas.Skip()})
    return gradnas.replace(
        model, "*.mlp", lambda old: {"keep": old, "small": Small(WIDTH, 16), "skip": gradnas.Skip()}
    )


def llama():
    config = transformers.LlamaConfig(vocab_size=60, intermediate_size=64, **SIZES)
    config.use_cache = False
    model = transformers.LlamaForCausalLM(config)
    gradnas.replace(model, "*.self_attn", lambda old: {"keep": old, "skip": gradnas.Skip()})
    gradnas.replace(model, "*.mlp", lambda old: {"keep": old, "small": Small(WIDTH, 16)})
    return gradnas.replace(
        model,
        "model.layers.?",
        lambda old: {"keep": old, "skip": gradnas.Skip()},
    )


def vit():
    config = transformers.ViTConfig(image_size=32, patch_size=8, intermediate_size=64, **SIZES)
    model = transformers.ViTForImageClassification(config)
    gradnas.replace(model, "*.attention", _attention_or_skip)
    return gradnas.replace(
        model, "*.mlp", lambda old: {"keep": old, "small": Small(WIDTH, 16), "skip": gradnas.Skip()}
    )


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic", num_labels=3
    )
    model = transformers.ResNetForImageClassification(config)
    block = transformers.models.resnet.modeling_resnet.ResNetBasicLayer
    return gradnas.replace(model, block, _blocks)


def _attention_or_skip(old: nn.Module):
    # "*.attention" also fits what lies inside an attention of the same name.
    return {"keep": old, "skip": gradnas.Skip()}


def _blocks(old: nn.Module):
    if not isinstance(old.shortcut, nn.Identity):
        return None  # the shape changes there
    width = old.layer[0].convolution.in_channels
    wide = nn.Conv2d(width, width, 5, padding=2)
    return {"keep": old, "conv5": wide, "skip": gradnas.Skip()}


MODELS = {
    "bert": (bert, tokens),
    "gpt2": (gpt2, tokens),
    "llama": (llama, tokens),
    "vit": (vit, images),
    "resnet": (resnet, images),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    make, example = MODELS[name]
    torch.manual_seed(0)
    return make(), example(1)


def loss(net, inputs: torch.Tensor) -> torch.Tensor:
    return net(inputs).logits.float().square().mean()


@pytest.mark.parametrize("name", MODELS)
def test_derived_equals_the_supernet_and_costs_what_the_table_says(name):
    model, inputs = made(name)
    cost = gradnas.ExpectedCost(target_macs=1e6)
    example = inputs[:1]
    search = gradnas.Search(model, cost=cost, example=example, seed=1)
    for _ in range(2):
        search.step(lambda net: loss(net, inputs), lambda net: loss(net, inputs))
    supernet = search.supernet
    supernet.eval()
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(8):
        picks = {
            choice: operations[int(torch.randint(len(operations), (), generator=generator))]
            for choice, operations in supernet.names.items()
        }
        seen.update(picks.values())
        draw = supernet.one_hot_draw(picks)
        network = supernet.derived(picks)
        assert not any(isinstance(m, (Choice, gradnas.Skip)) for m in network.modules())
        with torch.no_grad():
            wanted = supernet(inputs, draw=draw).logits
            found = network(inputs).logits
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
        assert gradnas.macs(network, example) == pytest.approx(search.costs.of(draw.mix))
    assert "skip" in seen and "keep" in seen


def text_model(name: str) -> nn.Module:
    """Initialised wide, so that its continuations differ."""
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=60, n_embd=WIDTH, n_layer=2, n_head=2, initializer_range=0.4
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=60, intermediate_size=64, initializer_range=0.4, **SIZES
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("skipped", [0, 1])
@pytest.mark.parametrize(("name", "attention"), [("gpt2", "attn"), ("llama", "self_attn")])
def test_generate_after_derive(name, attention, skipped):
    """Also without the first attention, by whose cache these models count their tokens."""
    torch.manual_seed(0)
    model = text_model(name)
    gradnas.replace(model, f"*.{attention}", lambda old: {"keep": old, "skip": gradnas.Skip()})
    inputs = tokens(1)
    search = gradnas.Search(model, seed=1)
    search.step(lambda net: net(inputs, use_cache=False).logits.square().mean())
    layers = sorted(search.supernet.names)
    decision = dict.fromkeys(layers, "keep") | {layers[skipped]: "skip"}
    network = search.supernet.derived(decision).eval()
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    plain = network.generate(inputs, use_cache=False, **settings)
    default = network.generate(inputs, **settings)
    torch.testing.assert_close(torch.stack(plain.logits), torch.stack(default.logits))
    if skipped == 0:
        with pytest.raises(AssertionError, match="use_cache=False"):
            network.generate(inputs, use_cache=True, **settings)


def test_a_cache_that_operations_would_all_write_into_is_refused():
    torch.manual_seed(0)
    model = text_model("gpt2")
    gradnas.replace(model, "*.attn", lambda old: {"keep": old, "skip": gradnas.Skip()})
    inputs = tokens(1)
    search = gradnas.Search(model)
    with pytest.raises(ValueError, match=r"DynamicCache.*use_cache=False"):
        search.step(lambda net: net(inputs, use_cache=True).logits.square().mean())
