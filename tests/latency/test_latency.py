"""Surveys, counts, tables and predictors of costs."""

from __future__ import annotations

import itertools
import json
import resource
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import gradnas
from gradnas.latency import (
    Device,
    Entry,
    LatencyTable,
    Timing,
    costs_of,
    device_notes,
    macs,
    measure,
    mobile_key,
    num_params,
    survey,
    time_interleaved,
)
from gradnas.latency.allocator import keeping_memory
from gradnas.latency.check import check_sums
from gradnas.latency.fit import fit
from gradnas.latency.measure import Sample
from gradnas.latency.predictor import Predictor
from gradnas.spaces import ModuleSupernet
from gradnas.spaces.affordable import cost_of
from tests.cases import TwoChoices, batch

CPU = torch.device("cpu")


class Nested(nn.Module):
    """A choice inside an operation of another, a module that runs twice, a shared choice, and work
    without modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 1)
        inner = gradnas.Choice(
            {"k1": nn.Conv2d(4, 4, 1), "k3": nn.Conv2d(4, 4, 3, padding=1)}, name="inner"
        )
        wrapped = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), inner, nn.ReLU())
        self.outer = gradnas.Choice(
            {"wrapped": wrapped, "skip": nn.Identity(), "full": nn.Conv2d(4, 4, 3, padding=1)}
        )
        self.shared = nn.ModuleList(
            gradnas.Choice(
                {"a": nn.Conv2d(4, 4, 1), "b": nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())},
                name="shared",
            )
            for _ in range(2)
        )
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 5)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.twice(self.outer(self.twice(self.stem(x_BCHW))))
        for choice in self.shared:
            x_BCHW = choice(x_BCHW)
        features = x_BCHW.mean(dim=(2, 3)) * self.scale
        return self.head(features @ torch.eye(4))


def _supernets():
    chain = gradnas.MBConvChain(
        stem_width=8,
        stem_stride=1,
        first_width=8,
        stages=((8, 2), (12, 2, 2)),
        candidates=("mb2_k3", "mb3_k5", "identity", "zero"),
        last_width=16,
        image_size=8,
    )
    return [ModuleSupernet(TwoChoices()), ModuleSupernet(Nested()), chain.supernet(3, 5)]


def _decisions(supernet):
    """Every architecture, by picking each combination of columns."""
    sizes = {name: alpha.shape[-1] for name, alpha in supernet.alphas.items()}
    for columns in itertools.product(*[range(size) for size in sizes.values()]):
        yield supernet.decision(dict(zip(sizes, columns, strict=True)))


@pytest.mark.parametrize("supernet", _supernets(), ids=["module", "nested", "chain"])
def test_the_sum_over_chosen_operations_is_the_count_of_the_derived_network(supernet):
    x = torch.randn(1, 3, 8, 8)
    costs = {quantity: supernet.costs(quantity, (x,)) for quantity in ("macs", "params")}
    decisions = list(_decisions(supernet))
    for decision in decisions[:: max(1, len(decisions) // 24)]:
        network = supernet.derived(decision)
        assert cost_of(supernet, decision, costs["macs"]) == macs(network, x)
        assert cost_of(supernet, decision, costs["params"]) == num_params(network)


def test_equal_operations_are_one_unit_and_a_rest_has_no_features():
    space = gradnas.MBConvChain(
        stem_width=8,
        stem_stride=1,
        first_width=None,
        stages=((8, 3),),
        candidates=("mb2_k3", "zero"),
        last_width=8,
        image_size=8,
    )
    units = space.supernet(3, 5).cost_view().survey((torch.randn(2, 3, 8, 8),))
    by_kind = {unit.kind: unit for unit in units}
    assert len(by_kind["Residual"].uses) == len(by_kind["Identity"].uses) == 3
    assert by_kind["rest"].features == {} and by_kind["Residual"].features["kernel"] == 3
    assert len({unit.key for unit in units}) == len(units)
    assert "input:2x8x8x8" in by_kind["Residual"].key


def test_keys_tell_settings_apart_that_repr_does_not_show():
    class Repeated(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times = times

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.times):
                x = x + 1
            return x

    net = nn.Sequential(Repeated(1), Repeated(3), Repeated(1))
    units = [unit for unit in survey(net, (torch.zeros(2, 3),)) if unit.kind == "Repeated"]
    assert sorted(len(unit.uses) for unit in units) == [1, 2]


def test_a_survey_leaves_the_network_as_it_was():
    net = TwoChoices(dropout=0.5)
    net.first.eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    measure(net, (batch(0)[0],), Timing(warmup=0, repeats=2))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(
        "forward" not in vars(module) and not module._forward_hooks for module in net.modules()
    )


class HeadInTraining(nn.Module):
    """An auxiliary head that runs in training alone, and a choice that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="body")
        self.head = nn.Linear(4, 3)
        self.auxiliary = gradnas.Choice(
            {"small": nn.Linear(4, 3), "large": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))},
            name="auxiliary",
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if self.training:
            return self.head(x) + self.auxiliary(x)
        return self.head(x)


def test_a_choice_that_runs_in_training_alone_costs_its_parameters_and_is_named():
    supernet = ModuleSupernet(HeadInTraining())
    x = torch.randn(2, 4)
    macs_costs = supernet.costs("macs", (x,))
    params_costs = supernet.costs("params", (x,))
    for decision in _decisions(supernet):
        network = supernet.derived(decision)
        assert cost_of(supernet, decision, macs_costs) == macs(network, x)
        assert cost_of(supernet, decision, params_costs) == num_params(network)
    (note,) = macs_costs.notes
    assert "the choice 'auxiliary' did not run in eval mode" in note
    assert params_costs.notes == ()


def test_an_operation_that_does_not_run_though_its_choice_does_is_refused():
    class First(gradnas.Choice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.operations["a"](x)

    net = nn.Sequential(First({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}, name="half"))
    with pytest.raises(ValueError, match="operation 1 of choice 'half' did not run"):
        survey(net, (torch.zeros(1, 2),))


# ---- published networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected_m"), [("cpu", 439.2), ("gpu", 465.3), ("mobile", 320.4)]
)
def test_multiply_adds_of_the_published_networks(name, expected_m):
    network = gradnas.MBConvChain.named(f"proxyless_{name}").network(num_classes=1000)
    assert round(macs(network, torch.zeros(1, 3, 224, 224)) / 1e6, 1) == expected_m


# ---- timing --------------------------------------------------------------------------------------


def test_everything_takes_its_turn_in_every_round():
    calls: list[int] = []
    works = [partial(nullcontext, partial(calls.append, k)) for k in range(5)]
    rounds: list[None] = []
    samples = time_interleaved(works, CPU, Timing(warmup=2, repeats=6), lambda: rounds.append(None))
    assert len(rounds) == 8 and all(
        isinstance(s, Sample) and s.count == 6 and s.ms >= 0 for s in samples
    )
    turns = [calls[5 * i : 5 * i + 5] for i in range(8)]
    assert (
        all(sorted(turn) == [0, 1, 2, 3, 4] for turn in turns)
        and len({tuple(t) for t in turns}) > 1
    )


def test_settings_of_a_timing_are_checked():
    for wrong in ({"repeats": 0}, {"warmup": -1}, {"clock": "sun"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Timing(**wrong)
    with pytest.raises(ValueError, match="clock='wall'"):
        Timing(clock="cpu").check(torch.device("cuda"))


def test_memory_stays_while_operations_are_timed_and_the_allocator_is_as_good_as_before():
    x = torch.zeros(40 * 2**20 // 4)  # 40 MiB: glibc gives such a block back at once

    def faults_of_three_calls() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(3):
            x + 1.0
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keeping_memory(CPU) as is_kept:
        if not is_kept:
            pytest.skip("not glibc, or its allocator is set")
        # A block with an alignment leaves a small rest beside it, which glibc keeps apart, up to
        # seven of one size: where the heap lies so, each of the first calls gets a new block.
        for _ in range(16):
            x + 1.0
        assert faults_of_three_calls() < 100
    assert faults_of_three_calls() > 1000
    with keeping_memory(torch.device("cuda")) as is_kept:
        assert not is_kept


def test_an_allocator_that_the_environment_sets_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    with keeping_memory(CPU) as is_kept:
        assert not is_kept


def test_whole_networks_are_timed_beside_their_sums():
    net, x = TwoChoices(), batch(0, size=2)[0]
    supernet = ModuleSupernet(net)
    timing = Timing(warmup=1, repeats=2)
    table = measure(net, (x,), timing)
    costs = supernet.costs("latency", (x,), table)
    decision = supernet.decide()
    sums = [cost_of(supernet, decision, costs)]
    network = supernet.derived(decision).eval()
    (checked,) = check_sums(supernet.cost_view(), (x,), [network], sums, CPU, timing)
    assert checked.sum_ms == sums[0]
    assert checked.whole_ms > 0
    assert checked.ratio == checked.sum_ms / checked.whole_ms
    assert "memory" not in str(replace(checked, fresh_ms=checked.whole_ms))
    assert "memory that is given back" in str(replace(checked, fresh_ms=2 * checked.whole_ms))


# ---- tables --------------------------------------------------------------------------------------


def _table(net: nn.Module, x: torch.Tensor, ms: float = 0.5) -> LatencyTable:
    entries = {u.key: Entry(ms, 0.1, 3, u.label, features=u.features) for u in survey(net, (x,))}
    return LatencyTable(entries, Device("cpu", "Some CPU", 1))


def test_a_measured_table_is_complete_and_survives_a_file(tmp_path):
    net, x = TwoChoices(), batch(0, size=2)[0]
    table = measure(net, (x,), Timing(warmup=1, repeats=3), {"space": "test"})
    assert {u.key for u in survey(net, (x,))} == set(table.entries)
    assert table.settings["inputs"] == [[2, 3, 6, 6]] and table.settings["repeats"] == 3
    assert table.device == Device.here(CPU) and device_notes(table, Device.here(CPU)) == ()
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == table


def test_a_missing_key_is_an_error_that_says_what_is_missing():
    net, x = TwoChoices(), batch(0, size=1)[0]
    table, like = _table(net, x), dict(ModuleSupernet(TwoChoices()).alphas.items())
    with pytest.raises(ValueError, match=r"no entry for stem.*is the batch size"):
        costs_of(survey(net, (batch(0, size=2)[0],)), "latency", like, table)
    # The same shapes, and so another module: no word of the batch size.
    other = next(iter(table.entries)).rpartition("-id:")[0] + "-id:0123456789"
    with pytest.raises(ValueError, match="is it the same module, with the same settings"):
        table.look_up(other)
    with pytest.raises(ValueError, match="gradnas latency measure"):
        table.look_up("Nothing-input:1-output:1-id:0")


def test_a_prediction_says_that_it_is_one():
    net, x = TwoChoices(), batch(0, size=1)[0]
    predictor = Predictor(("written",), (0.001,), 0.25, 0.9, 0.1, 20)
    full = _table(net, x)
    units = survey(net, (x,))
    lacking = next(u for u in units if u.label.endswith("conv5"))
    kept = {key: entry for key, entry in full.entries.items() if key != lacking.key}
    table = LatencyTable(kept, full.device, predictor=predictor)
    costs = costs_of(units, "latency", dict(ModuleSupernet(TwoChoices()).alphas.items()), table)
    assert costs.tables["first"][1] == 0.25 + 0.001 * lacking.features["written"]
    assert "predicted, not measured: 1 of 9" in costs.notes[0] and "conv5" in costs.notes[0]
    rest = next(u for u in units if u.kind == "rest")
    with pytest.raises(ValueError, match="no entry"):  # what no module does is never guessed
        table_without = LatencyTable(
            {k: e for k, e in kept.items() if k != rest.key}, predictor=predictor
        )
        costs_of(units, "latency", dict(ModuleSupernet(TwoChoices()).alphas.items()), table_without)


def test_a_table_of_another_device_is_named_with_this_one():
    table = LatencyTable({"x": Entry(1.0, 0.0, 1)}, Device("cuda", "Some GPU"))
    (note,) = device_notes(table, Device("cpu", "My CPU", 2))
    assert "Some GPU" in note and "My CPU (cpu, 2 threads)" in note
    assert device_notes(LatencyTable({}, None), Device("cpu", "My CPU", 2)) == ()


PHONE = {
    mobile_key("Conv", (8, 8, 3), (4, 4, 8)): {"count": 10, "mean": 1.5, "var": 0.04},
    mobile_key("expanded_conv", (4, 4, 8), (4, 4, 8), 3, 5, 1, True): {
        "count": 10,
        "mean": 2.25,
        "var": 0.0,
    },
    mobile_key("Logits", (4, 4, 16), 10): {"count": 9, "mean": 1e-3, "var": 1e-6},
}


def test_a_phone_table_reads_the_same_as_json_and_as_both_forms_of_yaml(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(PHONE))
    block = "# a comment\n---\n" + "".join(
        f"{key}:\n  count: {v['count']}\n  mean: {v['mean']}\n  var: {v['var']}\n"
        for key, v in PHONE.items()
    )
    (tmp_path / "t.yaml").write_text(block)
    flow = "".join(
        f"'{key}': {{count: {v['count']}, mean: {v['mean']}, var: {v['var']}}}\n"
        for key, v in PHONE.items()
    )
    (tmp_path / "t.yml").write_text(flow)
    tables = [LatencyTable.load(tmp_path / name) for name in ("t.json", "t.yaml", "t.yml")]
    assert tables[0] == tables[1] == tables[2] and tables[0].is_mobile
    first = tables[0].entries["Conv-input:8x8x3-output:4x4x8"]
    assert (first.ms, first.spread_ms, first.count) == (1.5, 0.2, 10)
    middle = tables[0].entries[
        "expanded_conv-input:4x4x8-output:4x4x8-expand:3-kernel:5-stride:1-idskip:1"
    ]
    assert middle.ms == 2.25 and middle.features["kernel"] == 5 and middle.features["skip"] == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.yaml", "!!python/object/apply:os.system [ls]\n", "line 1"),
        ("t.yaml", "Conv-input:8x8x3-output:4x4x8:\n  mean: ls\n", "line 2"),
        ("t.yaml", "Conv-input:8x8x3-output:4x4x8: {mean: 1\n", "line 1"),
        ("t.yaml", "Conv-input:8x8x3-output:4x4x8:\n  mean: 1\n", "count, mean and var"),
        ("t.yaml", 2 * "Conv-input:8x8x3-output:4x4x8:\n  mean: 1\n", "twice"),
        ("t.yaml", "Convv-input:8x8x3-output:4x4x8:\n  mean: 1\n  var: 0\n  count: 1\n", "Convv"),
        ("t.json", "{}", "no latencies"),
        ("t.json", "[]", "JSON object"),
        ("t.json", '{"format": "gradnas-genotype", "version": 1}', "not a latency table"),
        (
            "t.json",
            '{"format": "gradnas-latency", "version": 1, "entries": {"a": {"ms": -1}}}',
            "'a'",
        ),
        (
            "t.json",
            '{"format": "gradnas-latency", "version": 1, "entries": {"a": {"ms": NaN, "spread_ms": '
            '0, "count": 1}}}',
            "ms must be a finite number",
        ),
        (
            "t.json",
            '{"format": "gradnas-latency", "version": 1, "entrys": {}}',
            "did you mean 'entries'",
        ),
    ],
)
def test_a_damaged_table_is_refused_with_the_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        LatencyTable.load(tmp_path / name)


# ---- predictors ----------------------------------------------------------------------------------


def test_a_predictor_finds_costs_that_add_up_and_survives_a_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(60, 3, generator=generator, dtype=torch.float64) * 10
    features = [{"calls": a, "written": b, "nothing": c} for a, b, c in rows.tolist()]
    truth = [0.02 + 0.1 * f["calls"] + 0.03 * f["written"] for f in features]
    predictor = fit(features, truth)
    assert predictor.held_out_r2 > 0.999 and predictor.held_out_error < 0.01
    found = dict(zip(predictor.names, predictor.coefficients, strict=True))
    assert found["calls"] == pytest.approx(0.1, rel=0.01) and found["nothing"] == pytest.approx(
        0.0, abs=1e-3
    )
    table = LatencyTable({"x": Entry(1.0, 0.0, 1)}, predictor=predictor)
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json").predictor == predictor
    with pytest.raises(ValueError, match="other features"):
        predictor.predict({"calls": 1.0})


def test_a_predictor_does_not_know_noise():
    generator = torch.Generator().manual_seed(1)
    rows = torch.rand(60, 2, generator=generator, dtype=torch.float64).tolist()
    assert fit([{"a": a} for a, _ in rows], [b + 0.01 for _, b in rows]).held_out_r2 < 0.3


def test_too_few_operations_are_refused():
    with pytest.raises(ValueError, match="at least 10"):
        fit([{"a": 1.0}] * 3, [1.0] * 3)
