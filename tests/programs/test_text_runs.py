"""Whole runs on text: hidden states that belong to their position, resume bit for bit, averaged
SGD, generation."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from in_forks import code_of, forked

from gradnas import (
    AlphaOptimizer,
    FirstOrder,
    Genotype,
    NonFiniteError,
    RecurrentCell,
    RecurrentDropout,
    TokenLikelihood,
    Unrolled,
    WeightOptimizer,
    runs,
)
from gradnas.cli import main
from gradnas.config import from_json, read_object, to_json
from gradnas.data import ChunkLengths, TextConfig
from gradnas.families.recipes import (
    SEARCHES,
    TRAININGS,
    search_recipe,
    training_recipe,
)
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.training import start_training, train
from gradnas.randomness import generator_for
from gradnas.tasks.text import TEXT
from gradnas.tasks.text.generation import generate
from gradnas.tasks.text.reading import read_vocabulary
from gradnas.tasks.text.search import TextSearch
from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig
from gradnas.tasks.text.training import AveragedWeights, TextTraining

CPU = torch.device("cpu")
REPRODUCED = (runs.METRICS, runs.GENOTYPE, runs.RESULTS)
DROPOUT = RecurrentDropout(output=0.3, state=0.1, input=0.2, embedding=0.1, words=0.1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of three texts with a pattern to learn."""
    folder = tmp_path_factory.mktemp("corpus")
    numbers = generator_for(1)
    for split, lines in (("train", 150), ("valid", 40), ("test", 40)):
        text = ""
        for _ in range(lines):
            k = int(torch.randint(4, (), generator=numbers))
            text += " ".join(f"{'abcd'[(k + i) % 4]}{i % 3}" for i in range(8)) + "\n"
        (folder / f"{split}.txt").write_text(text)
    return folder


def small_search(corpus, **changes):
    config = TextSearchConfig(
        space=RecurrentCell(hidden=8, embedding=8, nodes=2, dropout=DROPOUT),
        gradient=Unrolled(clip=True),
        data=TextConfig(source=str(corpus)),
        chunks=ChunkLengths(base=9, short_probability=0.3),
        epochs=2,
        batch_size=7,
        weights=WeightOptimizer(
            lr=5.0, lr_end=5.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
        ),
        alphas=AlphaOptimizer(lr=0.05),
        threads=1,
        checkpoint_seconds=0.0,
    )
    return replace(config, **changes)


def small_training(corpus, **changes):
    config = TextTrainConfig(
        space=RecurrentCell(hidden=8, embedding=8, dropout=DROPOUT),
        genotype=Genotype.named("DARTS_V2_recurrent"),
        data=TextConfig(source=str(corpus)),
        chunks=ChunkLengths(base=9, short_probability=0.3, deviation=2.0),
        epochs=6,
        batch_size=7,
        eval_batch_size=3,
        test_batch_size=2,
        lr=100.0,  # so large that the validation loss does not keep falling
        patience=1,
        threads=1,
        checkpoint_seconds=0.0,
    )
    return replace(config, **changes)


def search(config, path):
    data = config.data.load()
    return run_search(config, start_search(config, path, data, CPU), data, CPU, progress=False)


def training(config, path):
    data = config.data.load()
    return train(config, start_training(config, path, data, CPU), data, CPU, progress=False)


def contents(path, names=REPRODUCED):
    return {name: (path / name).read_bytes() for name in names}


def step(state):
    return state.step(next(state.batches()))


# ---- streams and hidden states -------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    steps=st.integers(1, 40),
    seed=st.integers(0, 9),
    base=st.integers(1, 17),
    batch_size=st.integers(2, 6),
    first_order=st.booleans(),
)
def test_a_hidden_state_is_that_of_the_text_before_it(
    corpus, steps, seed, base, batch_size, first_order
):
    """With weights that stand still, reading either text from its top in one go gives the carried
    states: whatever the lengths of the chunks and however often the texts began again."""
    config = small_search(
        corpus,
        space=RecurrentCell(hidden=5, embedding=5, nodes=2),
        gradient=FirstOrder() if first_order else Unrolled(clip=True),
        chunks=ChunkLengths(base=base, short_probability=0.4, deviation=1.5, least=2),
        batch_size=batch_size,
        weights=WeightOptimizer(lr=0.0, lr_end=0.0, momentum=0.0, clip_norm=0.25),
        alphas=AlphaOptimizer(lr=0.0),
        seed=seed,
    )
    state = TextSearch(config, config.data.load(), CPU)
    supernet, wrapped = state.search.supernet.double(), {"train": 0, "valid": 0}
    state.search.params.update(supernet.named_parameters())
    state.search.params.pop("alphas.recurrent")
    for _ in range(steps):
        for name, carried in (("train", state.train), ("valid", state.valid)):
            wrapped[name] += carried.stream.finished
        step(state)
        for carried in (state.train, state.valid):
            rows_TB = carried.stream.data_RB[: carried.stream.row]
            with torch.no_grad():
                _, expected_BH = supernet(rows_TB, None)
            assert (carried.hidden_BH - expected_BH).abs().max() < 1e-10
    rows = {name: getattr(state, name).stream.rows for name in wrapped}
    assert wrapped["valid"] == (steps * base - 1) // rows["valid"] or rows["valid"] % base


@pytest.mark.parametrize(
    "gradient", [FirstOrder(), Unrolled(clip=True), Unrolled(mode="exact", clip=True)]
)
def test_hidden_states_move_on_by_the_real_weights(corpus, gradient):
    """Once for each chunk, with the weights of before the step and its dropout, not with unrolled
    or perturbed ones."""
    config = small_search(corpus, gradient=gradient)
    state = TextSearch(config, config.data.load(), CPU)
    for _ in range(3):
        step(state)
    supernet, noise = state.search.supernet, torch.get_rng_state()
    before = state.valid.stream.row
    with torch.no_grad():
        rows_TB = state.valid.stream.data_RB[before : before + 9]
        _, valid_BH = supernet(rows_TB, state.valid.hidden_BH)
    torch.set_rng_state(noise)
    step(state)
    assert torch.allclose(state.valid.hidden_BH, valid_BH, atol=1e-6)


def test_the_learning_rate_of_a_chunk_reaches_the_inner_step_and_is_put_back(corpus, monkeypatch):
    config = small_search(corpus)
    state, seen = TextSearch(config, config.data.load(), CPU), []
    inner = state.search.weight_step.inner_step
    monkeypatch.setattr(
        state.search.weight_step,
        "inner_step",
        lambda method: seen.append(inner(method)) or inner(method),
    )
    lengths = []
    for _ in range(8):
        row = state.train.stream.row
        step(state)
        lengths.append(state.train.stream.row - row)
        assert state.search.weight_optimizer.param_groups[0]["lr"] == 5.0
    assert len(set(lengths)) > 1
    assert [step.lr for step in seen] == [5.0 * length / 9 for length in lengths]
    assert all(step.clip_norm == 0.25 for step in seen)


# ---- the same files ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled(clip=True)])
def test_search_repeats_and_resumes_bit_for_bit(corpus, tmp_path, gradient, monkeypatch):
    """Stopped after every third step, in the middle of a pass through the text; the same files in
    the end."""
    config = small_search(corpus, gradient=gradient)
    search(config, tmp_path / "whole")
    data, counted = config.data.load(), []
    run = start_search(config, tmp_path / "stopped", data, CPU)

    def stop_now_and_then(keeper):
        keeper.save()
        counted.append(1)
        if len(counted) % 3 == 0:
            raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop_now_and_then)
    stops = resumed(lambda: run_search(config, run, data, CPU, progress=False))
    assert stops > 5
    assert contents(tmp_path / "whole", (*REPRODUCED, runs.ALPHAS)) == contents(
        tmp_path / "stopped", (*REPRODUCED, runs.ALPHAS)
    )
    assert from_json(TextSearchConfig, read_object(run.path / runs.CONFIG)) == config


def resumed(work):
    """Do the work until it is no longer interrupted; how often it was."""
    for stops in range(1000):
        torch.manual_seed(stops)  # another state each time, as in a new process
        try:
            work()
            return stops
        except runs.Interrupted:
            continue
    raise AssertionError("it never ends")


@pytest.mark.slow
def test_training_resumes_bit_for_bit_also_after_the_switch(corpus, tmp_path, monkeypatch):
    config = small_training(corpus)
    training(config, tmp_path / "whole")
    averaged = [row["averaged"] for row in runs.Run(tmp_path / "whole").records()]
    assert averaged[0] is False and averaged[-1] is True  # it did switch
    data, counted = config.data.load(), []
    run = start_training(config, tmp_path / "stopped", data, CPU)

    def stop_now_and_then(keeper):
        keeper.save()
        counted.append(1)
        if len(counted) % 4 == 0:
            raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop_now_and_then)
    assert resumed(lambda: train(config, run, data, CPU, progress=False)) > 10
    names = (*REPRODUCED, runs.WEIGHTS)
    assert contents(tmp_path / "whole", names) == contents(tmp_path / "stopped", names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "training"])
def test_kill_and_resume(corpus, tmp_path, kind, monkeypatch):
    """`kill -9`, of the training after its switch; then the files of an undisturbed run.

    `benchmarks/campaigns kills` does it at other moments.
    """
    if kind == "search":
        config = small_search(corpus, epochs=3, checkpoint_seconds=0.05)
        search(config, tmp_path / "whole")
        run = start_search(config, tmp_path / "killed", config.data.load(), CPU)
    else:
        config = small_training(corpus, epochs=9, checkpoint_seconds=0.05)
        training(config, tmp_path / "whole")
        run = start_training(config, tmp_path / "killed", config.data.load(), CPU)
    goal = 1 if kind == "search" else 7  # epochs; it is killed somewhere in the next one
    after_step = runs.Keeper.after_step
    late = []

    def waits(keeper):
        after_step(keeper)
        if len(run.records()) > goal:
            late.append(1)
        if len(late) == 3:
            signal.pause()  # for the kill, however late it comes

    with monkeypatch.context() as patch:
        patch.setattr(runs.Keeper, "after_step", waits)
        child = forked(lambda: main(["resume", str(run.path)]))
    while len(run.records()) <= goal or not (run.path / runs.CHECKPOINT).exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert code_of(child) == -signal.SIGKILL
    if kind == "training":
        assert run.records()[-1]["averaged"]  # so the last kill came after the switch
    assert main(["resume", str(run.path)]) == 0
    assert contents(tmp_path / "whole") == contents(tmp_path / "killed")


def test_another_text_is_refused_on_resume(corpus, tmp_path):
    config = small_search(corpus, max_steps=2)
    search(config, tmp_path / "run")
    other = tmp_path / "other.txt"
    other.write_text("other words here now\n" * 50)
    with pytest.raises(ValueError, match=r"is not the data that .* began with"):
        run_search(
            config,
            runs.Run(tmp_path / "run"),
            TextConfig(source=str(other)).load(),
            CPU,
            progress=False,
        )


# ---- averaged SGD --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_trigger_and_the_mean(corpus, tmp_path):
    """The switch comes after the first epoch whose loss is above the best of all but the last
    `patience` before it, and from then on the validation loss is that of the mean of the
    weights."""
    config = small_training(corpus)
    training(config, tmp_path / "run")
    rows = runs.Run(tmp_path / "run").records()
    losses, expected = [], False
    for row in rows:
        assert row["averaged"] is expected
        if len(losses) > 1 and row["valid_loss"] > min(losses[:-1]):
            expected = True
        losses.append(row["valid_loss"])
    results = read_object(tmp_path / "run" / runs.RESULTS)
    assert results["valid_loss"] == min(losses) and results["best_epoch"] == losses.index(
        min(losses)
    )
    state = TextTraining(config, config.data.load(), CPU)
    state.averaged = AveragedWeights(state.network)
    seen = []
    for _ in range(4):
        step(state)
        seen.append(state.network.node_weights.detach().clone())
    mean = torch.stack(seen).mean(0)
    with state.judged_weights() as network:
        assert torch.allclose(network.node_weights, mean, atol=1e-6) and not network.training
    assert torch.equal(state.network.node_weights, seen[-1]) and state.network.training


def test_the_learning_rate_of_a_chunk_is_that_of_its_own_step(corpus):
    """Also in averaged SGD, where torch's own ASGD would use it one step later."""
    config = small_training(
        corpus, space=RecurrentCell(hidden=8, embedding=8), objective=TokenLikelihood()
    )
    state = TextTraining(config, config.data.load(), CPU)
    state.averaged = AveragedWeights(state.network)
    for _ in range(5):
        before = {k: p.detach().clone() for k, p in state.network.named_parameters()}
        row = state.train.stream.row
        hidden = state.train.hidden_BH
        step(state)
        inputs_TB = state.train.stream.data_RB[row : state.train.stream.row + 1]
        after = {k: p.detach().clone() for k, p in state.network.named_parameters()}
        state.network.load_state_dict(before)
        loss = state.network(inputs_TB[:-1], hidden, inputs_TB[1:]).nll
        grads = torch.autograd.grad(loss, list(state.network.parameters()))
        size = torch.stack([g.norm() for g in grads]).norm()
        factor = min(1.0, 0.25 / (size.item() + 1e-6))
        lr = 100.0 * (len(inputs_TB) - 1) / 9
        for (name, p), g in zip(before.items(), grads, strict=True):
            assert torch.allclose(
                after[name], p - lr * (factor * g + config.weight_decay * p), atol=1e-5
            )
        state.network.load_state_dict(after)


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_learns_generates_and_compares_with_random_cells(corpus, tmp_path):
    config = small_training(
        corpus,
        space=RecurrentCell(hidden=16, embedding=16, nodes=3),
        lr=15.0,
        patience=None,
        epochs=8,
        genotype=Genotype.recurrent_cell([("tanh", 0), ("relu", 1), ("tanh", 1)]),
        random_cells=2,
    )
    results = training(config, tmp_path / "run")
    assert results["test_perplexity"] < 3.5  # 13 words; all but the first of a line are certain
    random = results["random_cells"]
    assert (
        len(random["test_perplexities"]) == 2
        and (tmp_path / "run" / "random" / "1" / runs.RESULTS).exists()
    )
    run = runs.Run(tmp_path / "run")
    network, vocabulary = TEXT.load_trained(run, config), read_vocabulary(run)
    assert generate(network, vocabulary, "a0 b1 c2", tokens=2, temperature=0.0) == "a0 b1 c2 d0 a1"
    texts = {generate(network, vocabulary, "a0", tokens=30, seed=seed) for seed in (1, 1, 2)}
    assert len(texts) == 2
    for prompt, tokens, temperature, sentence in (
        ("a0 zz", 3, 1.0, "unknown word 'zz'"),
        ("a0", 0, 1.0, "tokens must be at least 1"),
        ("a0", 1, -1.0, "temperature must be at least 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            generate(network, vocabulary, prompt, tokens, temperature)


def test_nan_stops_and_keeps_the_last_good_state(corpus, tmp_path):
    config = small_training(corpus, lr=1e30)
    data = config.data.load()
    run = start_training(config, tmp_path / "nan", data, CPU)
    with pytest.raises(NonFiniteError, match=r"epoch \d+, row \d+"):
        train(config, run, data, CPU, progress=False)
    state, _ = run.load_checkpoint()
    assert all(torch.isfinite(t).all() for t in state["network"].values())


def test_recipes_are_those_of_the_paper():
    """Numbers of the original's search and evaluation."""
    ptb = search_recipe("darts-ptb")
    assert isinstance(ptb, TextSearchConfig) and ptb.gradient == Unrolled(
        mode="finite_difference", clip=True
    )
    assert (ptb.batch_size, ptb.epochs, ptb.weights.lr_at(30, 50)) == (256, 50, 20.0)
    assert search_recipe("darts-ptb-first-order").gradient == FirstOrder()
    for name, hidden, state, decay in (
        ("darts-ptb-eval", 850, 0.25, 8e-7),
        ("darts-wikitext2-eval", 700, 0.15, 5e-7),
    ):
        config = training_recipe(name, Genotype.named("DARTS_V2_recurrent"))
        assert isinstance(config, TextTrainConfig)
        assert (config.space.hidden, config.space.dropout.state, config.weight_decay) == (
            hidden,
            state,
            decay,
        )
        assert (config.patience, config.chunks.deviation, config.test_batch_size) == (5, 5.0, 1)
    for name, recipe in {**SEARCHES, **TRAININGS}.items():
        if name == "own-task-eval":  # trains choices
            continue
        config = recipe() if name in SEARCHES else recipe(Genotype.named("DARTS_V2_recurrent"))
        assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_a_validation_loss_that_is_not_finite_stops_the_run(corpus):
    config = small_training(corpus)
    state = TextTraining(config, config.data.load(), CPU)
    step(state)
    state.network.decoder_bias.data.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="epoch 0: the validation loss is NaN or infinite"):
        state.finish_epoch()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"epochs": 0}, "epochs must be at least 1"),
        (
            {"batch_size": 2000},
            "the train split has .* tokens, but 2000 streams of a batch need at least 4000",
        ),
    ],
)
def test_refusals(corpus, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        config = small_search(corpus, **change)
        TextSearch(config, config.data.load(), CPU)
