"""Both engines against torch autograd and torch.optim, step by step."""

import numpy as np
import pytest
import torch

import precode as pc
import reference
from precode import _precode
from support import start, weights_of

ENGINES = [("libtorch", "float64"), ("libtorch", "float32"), ("fused", "float32")]
# Largest difference of any weight, relative to the largest weight of its tensor, after one step and after 200.
# float32 steps divide a rounded gradient by its own size, so small differences grow along a trajectory.
TOLERANCE = {"float64": (1e-10, 1e-10), "float32": (2e-5, 5e-3)}


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
