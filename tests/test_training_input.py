"""Arguments of training: what is refused, with what words, and what is taken."""

import numpy as np
import pytest
import torch

import precode as pc
from support import weights_of

T = pc.Dnf.random(clauses=4, seed=0)
N20 = pc.Dnf.random(variables=20, clauses=4, seed=0)
SMALL = dict(samples=100, epochs=1, hidden=4)
LAYERS = weights_of([(torch.ones(1, 4, 32), torch.ones(1, 4)), (torch.ones(1, 1, 4), torch.ones(1, 1))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pc.train([], **SMALL), "0 networks"),
        (lambda: pc.train(), "nothing to train on"),
        (lambda: pc.train(T, **{**SMALL, "hidden": 0}), "hidden = 0: expected an integer of at least 1"),
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
        (lambda: pc.train(T, **{**SMALL, "epochs": 0}), "epochs = 0: expected an integer of at least 1 and below 2"),
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
        (lambda: pc.train([T] * 1000, samples=10**9), "1000 networks on 1000000000 samples each.*GiB"),
        (lambda: pc.train([T] * 64, data=T.sample(64), hidden=10**8), "64 networks needs.*GiB.*narrower"),
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
    monkeypatch.setattr("precode.networks.settings.available_devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    with pytest.raises(pc.UnsupportedError, match="fused engine runs on the CPU, not on 'cuda:1'"):
        pc.train(T, **SMALL, engine="fused", device="cuda:1")
    with pytest.raises(pc.UnsupportedError, match="'mps' is not available: use one of cpu, cuda:0, cuda:1"):
        pc.train(T, **SMALL, device="mps")
