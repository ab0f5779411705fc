"""What every run promises, whichever engine carries it out."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

import precode as pc
import reference
from support import start, weights_of

SMALL = dict(samples=100, epochs=1, hidden=4)


@pytest.mark.parametrize("engine", ["fused", "libtorch"])
def test_a_network_is_the_same_alone_and_in_any_company(engine):
    tasks = [pc.Dnf.random(clauses=6, seed=0, index=index) for index in range(5)]
    options = dict(hidden=20, epochs=4, samples=1000, engine=engine, snapshots=[0, 16, 40])
    runs = pc.train(tasks, **options)
    alone = pc.train(tasks[3], indices=[3], **options)
    for step in (0, 16, 40):
        for name, tensor in alone.at(step).weights.items():
            whole = runs.at(step).weights[name][3]
            if engine == "fused":
                assert torch.equal(tensor[0], whole)
            else:
                torch.testing.assert_close(tensor[0], whole, rtol=1e-4, atol=1e-5)


def test_same_seed_same_bits_for_any_number_of_threads():
    script = (
        "import precode as pc, hashlib\n"
        "tasks = [pc.Dnf.random(clauses=6, seed=0, index=i) for i in range(6)]\n"
        "runs = pc.train(tasks, hidden=24, epochs=3, samples=2000)\n"
        "print(hashlib.sha256(b''.join(w.numpy().tobytes() for w in runs.weights.values())).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "RAYON_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("engine", ["fused", "libtorch"])
def test_early_stopping_is_per_network_and_follows_its_rule(engine):
    tasks = [pc.Dnf.random(clauses=count, seed=0) for count in (2, 12)]
    rule = pc.EarlyStopping(patience=2, min_delta=0.02)
    options = dict(hidden=16, epochs=30, samples=2000, lr=0.01, engine=engine)
    free = pc.train(tasks, early_stopping=None, **options)
    runs = pc.train(tasks, early_stopping=rule, snapshots=[0, 900], **options)
    for network in range(2):
        losses = free.history.query("network == @network")["train_loss"].tolist()
        expected = reference.early_stopping_epochs(losses, 2, 0.02)
        assert runs.epochs_run[network] == expected < 30
        assert len(runs.history.query("network == @network")) == expected
    assert runs.epochs_run[0] != runs.epochs_run[1]
    for name, tensor in runs.at(900).weights.items():
        assert torch.equal(tensor, runs.weights[name])


@pytest.mark.parametrize("engine", ["fused", "libtorch"])
def test_a_run_can_be_taken_up_after_an_epoch(engine):
    task = pc.Dnf.random(clauses=6, seed=0)
    options = dict(samples=650, optimizer="sgd", lr=0.1, early_stopping=None, engine=engine)
    whole = pc.train(task, hidden=16, epochs=4, snapshots=[22], **options)
    rest = pc.train(task, init=whole.at(22).weights, epochs=2, first_epoch=2, **options)
    again = pc.train(task, init=whole.at(22).weights, epochs=2, **options)
    for name, tensor in rest.weights.items():
        assert torch.equal(tensor, whole.weights[name])
    assert not torch.equal(again.weights["w1"], whole.weights["w1"])


def test_validation_loss_is_that_of_the_weights_after_the_epoch():
    task = pc.Dnf.random(clauses=6, seed=0)
    held_out = task.sample(500, seed=9)
    for engine in ("fused", "libtorch"):
        runs = pc.train(task, hidden=16, epochs=3, samples=640, validation=held_out, engine=engine, snapshots=[10])
        expected = runs.at(10).evaluate(held_out)["loss"].item()
        assert runs.history["validation_loss"].iloc[0] == pytest.approx(expected, rel=1e-5)
        rule = pc.EarlyStopping(patience=1, min_delta=1, watch="validation")
        runs = pc.train(task, hidden=16, epochs=9, samples=640, validation=100, early_stopping=rule, engine=engine)
        assert runs.epochs_run.tolist() == [2]


def test_evaluate_and_module_agree():
    task = pc.Dnf.random(clauses=6, seed=0)
    for embedding in ("identity", "hadamard", "hadamard-raw", "random", np.ones((40, 32), np.float32)):
        runs = pc.train(task, hidden=16, epochs=2, samples=1000, embedding=embedding)
        with torch.no_grad():
            logits = runs.module(0)(runs.data[0].x.float())[:, 0]
        labels = runs.data[0].y
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        measured = runs.evaluate().iloc[0]
        assert measured["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert measured["error"] == pytest.approx(((logits > 0) != labels).float().mean().item(), abs=1e-6)


def test_a_run_leaves_the_process_as_it_was():
    task = pc.Dnf.random(clauses=4, seed=0)
    init = weights_of(start([32, 8, 1], 1, dtype=torch.float32))
    for tensor in init.values():
        tensor.requires_grad_()
    before = {name: tensor.detach().clone() for name, tensor in init.items()}

    def state():
        return (
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 - the state a user may rely on
        )

    expected = state()
    for engine in ("fused", "libtorch"):
        pc.train(task, init=init, epochs=1, samples=200, engine=engine)
        assert state() == expected

        def stop(done, total):
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            pc.train([task] * 50, hidden=64, engine=engine, progress=stop)
        assert state() == expected
        with pytest.raises(pc.PrecodeError):
            pc.train(task, init=init, epochs=1, batch=0, engine=engine)
        assert state() == expected
    for name, tensor in init.items():
        assert torch.equal(tensor, before[name])
        assert tensor.requires_grad


def test_progress_is_reported_to_the_end():
    seen = []
    task = pc.Dnf.random(clauses=4, seed=0)
    pc.train(
        [task] * 4,
        epochs=5,
        early_stopping=None,
        hidden=64,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {4 * 5 * 313}
    assert seen[-1][0] <= 4 * 5 * 313


@pytest.mark.parametrize("engine", ["fused", "libtorch"])
def test_ctrl_c_is_answered_within_a_second(engine):
    task = pc.Dnf.random(clauses=16, seed=0)
    sent = []

    def interrupt():
        time.sleep(0.5)
        sent.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    data = task.sample(20_000)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pc.train([task] * 64, data=data, epochs=10_000, early_stopping=None, engine=engine)
    assert time.perf_counter() - sent[0] < 1
    thread.join()


def test_engines_reach_the_same_outcome():
    tasks = [pc.Dnf.random(clauses=8, seed=0, index=index) for index in range(30)]
    fused, libtorch = (
        pc.train(tasks, hidden=16, epochs=12, samples=4000, engine=engine) for engine in ("fused", "libtorch")
    )
    loss = [runs.evaluate()["loss"].to_numpy() for runs in (fused, libtorch)]
    size = [runs.codes().code_size().mean(-1) for runs in (fused, libtorch)]
    for a, b, scale in ((*loss, 0.02), (*size, 0.15)):
        difference = a - b
        # The same start and data, so only rounding differs: no bias beyond four standard errors.
        assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(30) + 1e-6
        assert abs(difference.mean()) < scale


@pytest.mark.parametrize("dtype", ["float32", torch.float64, "float16", torch.bfloat16])
def test_every_kind_of_weights_is_trained(dtype):
    runs = pc.train(pc.Dnf.random(clauses=4, seed=0), **SMALL, dtype=dtype, optimizer=pc.Optimizer("sgd", lr=0.1))
    assert runs.weights["w1"].dtype == (getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    assert np.isfinite(runs.evaluate()["loss"]).all()


@pytest.mark.parametrize("copied", [lambda item: pickle.loads(pickle.dumps(item)), copy.deepcopy])
def test_runs_and_networks_are_pickled_and_copied(copied):
    tasks = [pc.Dnf.random(variables=20, clauses=4, outputs=outputs, seed=0) for outputs in (1, 2)]
    for task in tasks:
        runs = pc.train([task] * 2, **SMALL, embedding="random", seed=3, snapshots=[0, 2])
        again = copied(runs)
        assert repr(again) == repr(runs)
        assert again.tasks == runs.tasks
        assert again.settings == runs.settings
        np.testing.assert_array_equal(again.epochs_run, runs.epochs_run)
        np.testing.assert_array_equal(again.embedding.matrix, runs.embedding.matrix)
        for before, after in (
            (runs, again),
            (runs.start, again.start),
            (runs.at(2), again.at(2)),
            (runs.at(0), copied(runs.at(0))),
        ):
            for name, tensor in before.weights.items():
                assert torch.equal(after.weights[name], tensor)
            assert after.codes().channels().tolist() == before.codes().channels().tolist()
        assert again.history.equals(runs.history)
        assert again.evaluate().equals(runs.evaluate())


def test_networks_are_indexed_sliced_and_iterated():
    tasks = [pc.Dnf.random(clauses=4, seed=0, index=index) for index in range(5)]
    runs = pc.train(tasks, hidden=8, epochs=1, samples=640, snapshots=[0, 5], embedding="hadamard")
    for which, numbers in (
        (2, [2]),
        (-1, [4]),
        (np.int64(1), [1]),
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        ([3, 0, 3], [3, 0, 3]),
        (np.array([1, -2]), [1, 3]),
    ):
        some = runs[which]
        assert type(some) is pc.Networks
        assert some.tasks == tuple(tasks[number] for number in numbers)
        for name, value in some.weights.items():
            assert torch.equal(value, runs.weights[name][numbers])
        np.testing.assert_array_equal(some.codes().channels(), runs.codes().channels()[numbers])
        assert some.evaluate([runs.data[n] for n in numbers])["error"].tolist() == [
            runs.evaluate()["error"][n] for n in numbers
        ]
    assert [network.tasks[0] for network in runs] == tasks
    assert len(list(reversed(runs))) == 5
    assert len(runs.at(5)[:2]) == len(runs.start[:2]) == 2
    assert runs.snapshots == [0, 5]
    assert pc.train(tasks, hidden=8, epochs=1, samples=64).snapshots == []
    for wrong in (5, -6, [0, 9]):
        with pytest.raises(IndexError, match="expected an integer from -5 to 4: there are 5"):
            runs[wrong]
    with pytest.raises(pc.PrecodeIndexError, match="none"):
        runs[5:]
    for wrong in ("0", 0.5, None, [True]):
        with pytest.raises(pc.PrecodeTypeError, match="a network's number"):
            runs[wrong]
