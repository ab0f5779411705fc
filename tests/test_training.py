"""Both engines against torch autograd and torch.optim, step by step, and what every run promises."""

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
from precode import _precode

ENGINES = [("libtorch", "float64"), ("libtorch", "float32"), ("fused", "float32")]
# Largest difference of any weight, relative to the largest weight of its tensor, after one step and after 200.
# float32 steps divide a rounded gradient by its own size, so small differences grow along a trajectory.
TOLERANCE = {"float64": (1e-10, 1e-10), "float32": (2e-5, 5e-3)}


def start(widths, networks, seed=0, dtype=torch.float64):
    return [
        tuple(tensor.to(dtype) for tensor in layer) for layer in _precode.linear_init(widths, seed, range(networks))
    ]


def weights_of(layers):
    names = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        names[f"w{number}"], names[f"b{number}"] = weight, bias
    return names


def compare(runs, layers, network, tolerance):
    for number, (weight, bias) in enumerate(layers, start=1):
        for name, expected in ((f"w{number}", weight), (f"b{number}", bias)):
            got = runs.weights[name][network].reshape(expected.shape).double()
            error = (got - expected.double()).abs().max() / expected.double().abs().max()
            assert error < tolerance, f"{name} of network {network}: {error:.1e}"


def orders(seed, epochs, samples):
    return [_precode.epoch_order(seed, epoch, samples).astype(np.int64) for epoch in range(epochs)]


CASES = {
    "adam": dict(optimizer=pc.Optimizer("adam", eps=1e-3)),
    "adam-default-eps": dict(optimizer=pc.Optimizer("adam")),
    "adamw": dict(optimizer=pc.Optimizer("adamw", lr=3e-3, eps=1e-3, weight_decay=0.1)),
    "adam-l2": dict(optimizer=pc.Optimizer("adam", eps=1e-3, weight_decay=0.01)),
    "sgd": dict(optimizer=pc.Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=1e-3)),
    "hadamard": dict(embedding="hadamard", optimizer=pc.Optimizer("adam", eps=1e-3)),
    "hadamard-raw": dict(embedding="hadamard-raw", optimizer=pc.Optimizer("sgd", lr=0.01)),
    "random": dict(embedding="random", optimizer=pc.Optimizer("adam", eps=1e-3)),
    "masked": dict(masked=True, optimizer=pc.Optimizer("adamw", lr=3e-3, eps=1e-3, weight_decay=0.1)),
    "two-outputs": dict(outputs=2, optimizer=pc.Optimizer("adam", eps=1e-3)),
    "wide-input": dict(variables=40, hidden=19, optimizer=pc.Optimizer("adam", eps=1e-3)),
}


@pytest.mark.parametrize("steps", [1, 203])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("engine", "dtype"), ENGINES)
def test_engines_follow_autograd(engine, dtype, case, steps):
    options = dict(CASES[case])
    masked, outputs = options.pop("masked", False), options.pop("outputs", 1)
    variables, hidden = options.pop("variables", 32), options.pop("hidden", 16)
    optimizer, name = options["optimizer"], options.get("embedding", "identity")
    # 29 steps an epoch, the last of 8 samples.
    samples, epochs = (64, 1) if steps == 1 else (28 * 64 + 8, 7)
    tasks = [pc.Dnf.random(variables=variables, clauses=6, outputs=outputs, seed=0, index=index) for index in range(2)]
    data = [task.sample(samples, seed=0, index=index) for index, task in enumerate(tasks)]
    matrix = torch.from_numpy(_precode.embedding_matrix(name, variables, 0).astype(np.float64))
    layers = start([matrix.shape[0], hidden, outputs], 2)
    masks = torch.rand(2, hidden, matrix.shape[0], generator=torch.Generator().manual_seed(0)) < 0.3
    runs = pc.train(
        tasks,
        data=data,
        init=weights_of(layers),
        masks={"w1": masks} if masked else None,
        epochs=epochs,
        early_stopping=None,
        engine=engine,
        dtype=dtype,
        **options,
    )
    assert runs.engine == engine
    tolerance = TOLERANCE[dtype][steps > 1]
    if case == "adam-default-eps" and dtype == "float32":
        tolerance *= 100  # eps of 1e-8 amplifies the rounding of gradients that nearly cancel
    for network in range(2):
        expected, _, losses, errors = reference.train(
            [(weight[network], bias[network]) for weight, bias in layers],
            data[network].x.numpy(),
            data[network].y.numpy().reshape(samples, outputs),
            orders(0, epochs, samples),
            optimizer.rule,
            optimizer.lr,
            momentum=optimizer.momentum,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            embedding=None if name == "identity" else matrix,
            masks=[masks[network], None] if masked else None,
        )
        compare(runs, expected, network, tolerance)
        history = runs.history[runs.history["network"] == network]
        np.testing.assert_allclose(history["train_loss"], losses, rtol=max(tolerance, 1e-9))
        np.testing.assert_allclose(history["train_error"], errors, atol=2.1 / samples)
        if masked:
            assert (runs.weights["w1"][network][~masks[network]] == 0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_deep_networks_follow_autograd(dtype):
    task = pc.Dnf.random(clauses=6, seed=0)
    data = task.sample(640, seed=0)
    layers = start([32, 12, 8, 1], 1)
    runs = pc.train(
        task,
        data=data,
        init=weights_of(layers),
        epochs=3,
        early_stopping=None,
        dtype=dtype,
        optimizer=pc.Optimizer("adam", eps=1e-3),
    )
    assert runs.engine == "libtorch"
    assert runs.engine_reason.startswith("libtorch: the fused engine")
    expected, *_ = reference.train(
        [(weight[0], bias[0]) for weight, bias in layers],
        data.x.numpy(),
        data.y.numpy()[:, None],
        orders(0, 3, 640),
        "adam",
        1e-3,
        eps=1e-3,
    )
    compare(runs, expected, 0, TOLERANCE[dtype][1])
    assert runs.widths == (32, 12, 8, 1)
    with pytest.raises(pc.PrecodeShapeError, match="one hidden layer"):
        runs.codes()


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
    for embedding in ("identity", "hadamard"):
        runs = pc.train(task, hidden=16, epochs=2, samples=1000, embedding=embedding)
        c0 = torch.from_numpy(runs.embedding.matrix)
        with torch.no_grad():
            logits = runs.module(0)(runs.data[0].x.float() @ c0.T)[:, 0]
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


T = pc.Dnf.random(clauses=4, seed=0)
N20 = pc.Dnf.random(variables=20, clauses=4, seed=0)
SMALL = dict(samples=100, epochs=1, hidden=4)
LAYERS = weights_of([(torch.ones(1, 4, 32), torch.ones(1, 4)), (torch.ones(1, 1, 4), torch.ones(1, 1))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.train([], **SMALL), "0 networks"),
        (lambda: pc.train(), "nothing to train on"),
        (lambda: pc.train(T, **{**SMALL, "hidden": 0}), "hidden = 0: expected an integer from 1"),
        (lambda: pc.train(T, **{**SMALL, "hidden": [4, 0]}), r"hidden = \[4, 0\]"),
        (lambda: pc.train(T, **SMALL, engine="cuda"), "cuda.*auto, fused, libtorch"),
        (lambda: pc.train(T, **SMALL, embedding="fourier"), "'fourier' is unknown"),
        (lambda: pc.train(T, **SMALL, embedding=np.ones((4, 5))), r"\(4, 5\)"),
        (lambda: pc.train(T, **SMALL, optimizer="lion"), "'lion' is unknown: use one of adam, adamw, sgd"),
        (lambda: pc.train(T, **SMALL, lr=-1.0), "lr = -1"),
        (lambda: pc.train(T, **SMALL, optimizer=pc.Optimizer(), lr=0.1), "lr = 0.1 beside"),
        (lambda: pc.Optimizer("adam", momentum=0.9), "only 'sgd' has momentum"),
        (lambda: pc.train(T, **SMALL, batch=0), "batch = 0"),
        (lambda: pc.train(T, **{**SMALL, "hidden": []}), r"hidden = \[\]: a network without hidden layer"),
        (lambda: pc.train(T, **{**SMALL, "epochs": 0}), "epochs = 0: expected an integer from 1 to 4294967295"),
        (lambda: pc.train(T, **{**SMALL, "epochs": 2**32}), "epochs = 4294967296"),
        (lambda: pc.train(T, **{**SMALL, "samples": 0}), "samples = 0"),
        (lambda: pc.train(T, **SMALL, seed=-1), "seed = -1"),
        (lambda: pc.train(T, **SMALL, order_seed=2**64), "order_seed = 18446744073709551616"),
        (lambda: pc.train(T, **SMALL, validation=-1), "validation = -1"),
        (lambda: pc.train(T, **SMALL, snapshots=[-1]), r"snapshots = \[-1\]"),
        (lambda: pc.train(T, **SMALL, indices=[-1]), r"indices = \[-1\]"),
        (lambda: pc.EarlyStopping(patience=2**32), "patience = 4294967296"),
        (lambda: pc.train(T, **SMALL, dtype="float8_e5m2"), "use one of float32, float64, float16, bfloat16"),
        (lambda: pc.train(T, **SMALL, device="toaster"), "'toaster' is unknown: use one of cpu"),
        (lambda: pc.train(T, **SMALL, device="meta"), "'meta' is not available: use one of cpu"),
        (lambda: pc.train(T, **SMALL, device="cuda:99"), "'cuda:99' is not available: use one of cpu"),
        (lambda: pc.train(T, **SMALL, masks={"w1": np.full((4, 32), 2)}), "contains 2: masks are Boolean"),
        (
            lambda: pc.train([T, N20], **SMALL),
            "task 0 has 32 variables and 1 outputs, but task 1 has 20 variables and 1 outputs",
        ),
        (lambda: pc.train([T, pc.Dnf.random(outputs=2)], **SMALL), "task 1 has 32 variables and 2 outputs"),
        (lambda: pc.train(T, data=N20.sample(100), epochs=1), "data set 0 has 20 variables"),
        (lambda: pc.train(T, **SMALL, validation=N20.sample(100)), "validation set 0 has 20 variables"),
        (lambda: pc.train(data=[T.sample(100), N20.sample(100)], epochs=1), "data set 1 has 20 variables"),
        (lambda: pc.train([T, T], data=[T.sample(100)], epochs=1), "data has 1 data sets for 2 networks"),
        (lambda: pc.train([T, T], init=LAYERS, epochs=1), "init has 1 networks, but there are 2 tasks"),
        (lambda: pc.train(T, init=LAYERS, hidden=5, epochs=1), r"hidden = \[5\], but init has hidden widths \[4\]"),
        (lambda: pc.train(pc.Dnf.random(outputs=2), init=LAYERS, epochs=1), "1 outputs, but the embedded task"),
        (lambda: pc.train(T, init={**LAYERS, "b1": torch.ones(1, 5)}, epochs=1), r"b1 of shape \(1, 5\)"),
        (lambda: pc.train(T, **SMALL).evaluate([T.sample(10)] * 2), "2 data sets for 1 networks"),
        (lambda: pc.train(T, **SMALL, snapshots=[99]), "snapshot at step 99"),
        (lambda: pc.train(T, **SMALL, early_stopping=pc.EarlyStopping(patience=0)), "patience = 0"),
        (lambda: pc.train(T, **SMALL, early_stopping=pc.EarlyStopping(watch="test")), "'test' is unknown"),
        (
            lambda: pc.train(T, **SMALL, early_stopping=pc.EarlyStopping(watch="validation")),
            "no validation data",
        ),
        (lambda: pc.train(T, **SMALL, indices=[0, 1]), "2 indices for 1"),
        (lambda: pc.train(T, **SMALL, masks={"w3": 1}), "w3"),
        (lambda: pc.train(T, **SMALL, masks={"w1": np.ones((1, 4, 31), bool)}), r"\(1, 4, 31\)"),
        (lambda: pc.train(T, **SMALL, dtype="int32"), "int32"),
        (lambda: pc.train(T, epochs=1, init={"w1": torch.ones(1, 4, 32)}), "expected w1, b1, w2, b2"),
        (
            lambda: pc.train(
                T,
                samples=100,
                epochs=1,
                init=weights_of(
                    [
                        (torch.full((1, 4, 32), torch.nan), torch.ones(1, 4)),
                        (torch.ones(1, 1, 4), torch.ones(1, 1)),
                    ]
                ),
            ),
            "finite",
        ),
        (
            lambda: pc.train(
                T,
                samples=100,
                epochs=1,
                init=weights_of([(torch.ones(1, 4, 31), torch.ones(1, 4)), (torch.ones(1, 1, 4), torch.ones(1, 1))]),
            ),
            "31 inputs",
        ),
        (lambda: pc.train([T] * 1000, samples=10**9), "1000 networks.*GiB"),
        (lambda: pc.train([T, pc.Dnf.random(variables=20, clauses=4)], **SMALL), "20 variables"),
        (lambda: pc.train(T, **SMALL, dtype="float64", engine="fused"), "float32"),
        (lambda: pc.train(T, **{**SMALL, "hidden": (4, 4)}, engine="fused"), "one hidden layer"),
        (lambda: pc.train(T, **SMALL).at(1), "no snapshot at step 1"),
        (lambda: pc.train(T, **SMALL).module(1), "network = 1: expected an integer from -1 to 0"),
        (lambda: pc.train(data=T.sample(100), epochs=1).codes(), "without a formula"),
    ],
)
def test_bad_input_is_refused_with_the_value(make, message):
    with pytest.raises(pc.PrecodeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.train("dnf"), "str"),
        (lambda: pc.train(3), "tasks must be Dnf formulas, not int"),
        (lambda: pc.train(T, data=[np.ones(3)]), "ndarray"),
        (lambda: pc.train(T, data=3), "data must be Dataset objects, not int"),
        (lambda: pc.train(T, **SMALL, validation="x"), "validation must be an integer, not str"),
        (lambda: pc.train(T, **SMALL, validation=True), "validation must be an integer, not bool"),
        (lambda: pc.train(T, hidden="32"), "hidden must be integers, not str"),
        (lambda: pc.train(T, hidden=[4.5]), "hidden must be integers, not float"),
        (lambda: pc.train(T, hidden=True), "hidden must be integers, not bool"),
        (lambda: pc.train(T, **SMALL, seed="0"), "seed must be an integer, not str"),
        (lambda: pc.train(T, **SMALL, batch=1.5), "batch must be an integer, not float"),
        (lambda: pc.train(T, **SMALL, snapshots=[0.5]), "snapshots must be integers, not float"),
        (lambda: pc.train(T, **SMALL, indices="0"), "indices must be integers, not str"),
        (lambda: pc.train(T, **SMALL, optimizer=3), "optimizer must be a name or an Optimizer, not int"),
        (lambda: pc.train(T, **SMALL, early_stopping=3), "early_stopping must be an EarlyStopping or None, not int"),
        (lambda: pc.EarlyStopping(patience=True), "patience must be an integer, not bool"),
        (lambda: pc.EarlyStopping(patience=1.5), "patience must be an integer, not float"),
        (lambda: pc.train(T, **SMALL, dtype=3), "dtype must be a name or a torch.dtype, not int"),
        (lambda: pc.train(T, **SMALL, masks={1: np.ones((4, 32))}), "masks must be arrays by the name.*not int"),
        (lambda: pc.train(T, **SMALL, masks=np.ones((4, 32))), "masks must be arrays by the name.*not ndarray"),
        (lambda: pc.train(T, init=[torch.ones(1)]), "weights must be tensors by name.*not list"),
        (lambda: pc.train(T, **SMALL).evaluate("x"), "data must be Dataset objects, not str"),
        (lambda: pc.train(T, **SMALL).module("x"), "network must be an integer, not str"),
        (lambda: pc.train(T, init={"w1": 1, "b1": 1, "w2": 1, "b2": 1}), "int"),
    ],
)
def test_wrong_types_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_integers_of_every_kind_are_taken():
    expected = pc.train([T, T], hidden=[4], samples=100, epochs=1, batch=10, seed=1, snapshots=[0, 5], indices=[3, 4])
    for kind in (np.int64, np.uint8, np.array, torch.tensor):
        runs = pc.train(
            (task for task in (T, T)),
            hidden=kind(4),
            samples=kind(100),
            epochs=kind(1),
            batch=kind(10),
            seed=kind(1),
            validation=kind(10),
            snapshots=(kind(step) for step in (0, 5)),
            indices=np.array([3, 4]),
            early_stopping=pc.EarlyStopping(patience=kind(2)),
        )
        for name, tensor in expected.weights.items():
            assert torch.equal(runs.weights[name], tensor)
            assert torch.equal(runs.at(kind(5)).weights[name], expected.at(5).weights[name])


def test_tasks_are_compared_before_anything_is_drawn(monkeypatch):
    def drawn(*_):
        raise AssertionError("sampled")

    monkeypatch.setattr("precode._precode.sample_all", drawn)
    with pytest.raises(pc.PrecodeShapeError, match="32 variables"):
        pc.train([T, N20], **SMALL)


def test_initial_weights_set_the_widths():
    start = pc.train(T, hidden=(7, 5), samples=100, epochs=1).start.weights
    assert pc.train(T, init=start, samples=100, epochs=1).widths == (32, 7, 5, 1)
    assert pc.train(T, init=start, hidden=(7, 5), samples=100, epochs=1).widths == (32, 7, 5, 1)
    assert pc.train(T, samples=100, epochs=1).widths == (32, 32, 1)


def test_the_fused_engine_is_refused_on_other_devices_before_a_transfer(monkeypatch):
    monkeypatch.setattr("precode.settings.available_devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    with pytest.raises(pc.UnsupportedError, match="fused engine runs on the CPU, not on 'cuda:1'"):
        pc.train(T, **SMALL, engine="fused", device="cuda:1")
    with pytest.raises(pc.UnsupportedError, match="'mps' is not available: use one of cpu, cuda:0, cuda:1"):
        pc.train(T, **SMALL, device="mps")


@pytest.mark.parametrize("dtype", ["float32", torch.float64, "float16", torch.bfloat16])
def test_every_kind_of_weights_is_trained(dtype):
    runs = pc.train(T, **SMALL, dtype=dtype, optimizer=pc.Optimizer("sgd", lr=0.1))
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_matches_the_cpu():
    tasks = [pc.Dnf.random(clauses=6, seed=0, index=index) for index in range(4)]
    options = dict(hidden=16, epochs=2, samples=2000, dtype="float64", early_stopping=None)
    cpu, cuda = pc.train(tasks, **options), pc.train(tasks, device="cuda", **options)
    assert cuda.engine == "libtorch"
    for name, tensor in cpu.weights.items():
        torch.testing.assert_close(cuda.weights[name].cpu(), tensor, rtol=1e-8, atol=1e-10)
