"""What the engines do at the edges: diverging networks, too little memory, signals, probes without a formula."""

import resource
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import precode as pc
from precode import _precode
from precode._internal import memory

TASK = pc.Dnf.random(variables=16, clauses=4, seed=0)
COUNTS = pc.BrokenClause(true_counts=(4, 6))
WILD = pc.Optimizer("sgd", lr=1e30)


def child(code: str, *, gigabytes: float | None = None) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, whose address space may grow by so much after precode is imported."""
    limit = (
        ""
        if gigabytes is None
        else f"""
        import psutil, resource
        room = psutil.Process().memory_info().vms + int({gigabytes} * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    """
    )
    start = "import numpy as np, torch, precode as pc\nfrom torch import nn\ntorch.set_num_threads(1)\n"
    text = start + textwrap.dedent(limit) + "\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)


def refused(code: str, *words: str, gigabytes: float | None = None) -> None:
    """Code raises an UnsupportedError of such words within its process, which lives on."""
    text = f"""
        try:
            {code}
        except pc.UnsupportedError as error:
            print("refused:", error)
        pc.train(pc.Dnf.random(variables=8, clauses=2, seed=0), hidden=4, samples=64, epochs=1)
        print("alive")
    """
    done = child(text, gigabytes=gigabytes)
    assert done.returncode == 0, done.stderr[-2000:]
    for word in ("refused:", "alive", *words):
        assert word in done.stdout, done.stdout


# --- networks that diverge


@pytest.mark.parametrize("engine", ["fused", "libtorch"])
@pytest.mark.parametrize("watch", ["train", "validation"])
def test_a_diverged_network_is_named_and_never_the_best(engine, watch):
    options = {"hidden": 8, "samples": 256, "epochs": 9, "engine": engine, "validation": 64}
    stopping = pc.EarlyStopping(patience=3, watch=watch)
    with pytest.warns(pc.DivergenceWarning, match=r"2 of 2 networks diverged.*network 0 \(epoch 1\).*learning rate"):
        runs = pc.train([TASK] * 2, optimizer=WILD, early_stopping=stopping, **options)
    assert runs.weights["b2"].isnan().all()
    history = runs.history
    assert not np.isfinite(history["train_loss"]).any()
    assert history["diverged"].all()
    assert runs.diverged.tolist() == [1, 1]
    # A loss that is not finite is no improvement: patience counts from the start.
    assert runs.epochs_run.tolist() == [3, 3]
    assert (history.query("epoch == 3")["train_error"] == 1).all()
    table = runs.evaluate()
    assert table["loss"].isna().all()
    assert (table["error"] == 1).all()


def test_networks_that_stay_finite_are_not_named():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = pc.train([TASK] * 2, hidden=8, samples=256, epochs=2)
    assert runs.diverged.tolist() == [0, 0]
    assert not runs.history["diverged"].any()


def test_a_network_that_diverges_by_its_last_step_is_named():
    # One step: the only loss is taken before it.
    with pytest.warns(pc.DivergenceWarning):
        runs = pc.train(TASK, hidden=8, samples=64, batch=64, epochs=1, optimizer=pc.Optimizer("sgd", lr=1e39))
    assert np.isfinite(runs.history["train_loss"]).all()
    assert runs.diverged.tolist() == [1]


def test_both_engines_agree_with_torch_on_a_nan_network():
    data = TASK.sample(256)
    runs = pc.train(TASK, hidden=8, data=data, epochs=1)
    weights = {name: value.clone() for name, value in runs.weights.items()}
    weights["w1"][0, 3, 5] = float("nan")
    broken = pc.Networks(weights, None, runs.embedding)
    module = broken.module(0)
    loss = nn.functional.binary_cross_entropy_with_logits(module(data.x.float())[:, 0], data.y.float())
    single, double = (
        broken.evaluate(data),
        pc.Networks({name: value.double() for name, value in weights.items()}, None, runs.embedding).evaluate(data),
    )
    assert loss.isnan()
    assert single["loss"].isna().all()
    assert double["loss"].isna().all()
    # Dense arithmetic spreads the NaN over all samples; the sparse engine has it in those with the variable.
    assert double["error"].item() == 1
    hit = data.x[:, 5]
    clean = pc.Networks(runs.weights, None, runs.embedding).module(0)(data.x.float())[:, 0] > 0
    wrong = torch.where(hit, torch.ones_like(data.y), clean != data.y)
    assert single["error"].item() == pytest.approx(wrong.float().mean().item())


def test_retraining_names_tickets_that_diverge():
    runs = pc.train([TASK] * 2, hidden=8, samples=256, epochs=2)
    tickets = pc.find_tickets(runs, ["random", "magnitude-init"], [0.5, 0.25])
    object.__setattr__(runs.settings, "optimizer", WILD)
    with pytest.warns(pc.DivergenceWarning, match="the ticket of random at 0.5 in network 0") as caught:
        retrained = tickets.retrain(test=200)
    assert len([item for item in caught if item.category is pc.DivergenceWarning]) == 1
    table = retrained.table()
    assert (table["accuracy"] == 0).all()
    assert table["recovery_location"].isna().all()
    assert table["dense_accuracy"].gt(0.3).all()


# --- memory


def test_sizes_that_no_memory_holds_are_refused():
    refused("pc.Dnf.random(variables=65536, clauses=4294967295, width=4)", "clauses", "GiB", "fewer")
    refused("pc.Dnf.random(variables=64, clauses=4294967295, width=16, outputs=16)", "clauses", "GiB")
    refused("TASK = pc.Dnf.random(variables=4096, clauses=4, seed=0); TASK.sample(4294967295)", "samples", "fewer")


def test_training_under_a_limit_of_the_address_space_is_refused_before_it_starts():
    refused(
        "pc.train([pc.Dnf.random(seed=0)] * 200, hidden=65536, samples=64, epochs=1)",
        "RLIMIT_AS",
        "ulimit -v",
        "200 networks",
        gigabytes=1.5,
    )
    refused(
        "pc.train([pc.Dnf.random(seed=0)] * 64, hidden=8, samples=3_000_000, epochs=1)", "64 networks", gigabytes=0.7
    )


def test_a_module_beyond_the_limit_is_refused():
    code = """
        module = nn.Linear(8192, 4096, bias=False)  # 128 MiB
        x, y = torch.randn(8, 8192), torch.randint(4096, (8,))
        try:
            pc.find_ticket(module, "snip", 0.1, (x, y), nn.functional.cross_entropy)
        except pc.UnsupportedError as error:
            print("refused:", error)
    """
    done = child(code, gigabytes=0.8)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'snip'" in done.stdout
    assert "128 MiB" in done.stdout


@pytest.mark.parametrize("method", ["random", "snip", "imp"])
def test_the_estimate_for_modules_is_enough(method):
    code = f"""
        import resource
        from precode.modules import search
        # Large enough for the allocator to give every tensor back.
        module = nn.Linear(4096, 4096, bias=False)
        x, y = torch.randn(8, 4096), torch.randint(4096, (8,))
        small = nn.Linear(32, 8, bias=False)
        options = dict(data=(x[:, :32], y % 8), loss=nn.functional.cross_entropy, epochs=1)
        pc.find_ticket(small, {method!r}, .1, **options)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pc.find_ticket(module, {method!r}, .1, **(options | dict(data=(x, y))))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        needed = []
        search.memory.check = lambda bytes_, what, remedy, device: needed.append(bytes_)
        search._check_memory({method!r}, search.masked.slots(module), [.1])
        print(grown / (4 * module.weight.numel()), needed[0] / (4 * module.weight.numel()))
    """
    done = child(code)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, needed = map(float, done.stdout.split())
    assert grown <= needed, f"{method} takes {grown:.1f} times the weights, not {needed:.1f}"


def test_the_estimate_of_the_libtorch_engine_is_enough():
    code = """
        import resource
        task = pc.Dnf.random(variables=64, clauses=4, seed=0)
        pc.train(task, hidden=[8, 8], samples=64, epochs=1)
        data = [task.sample(200_000, index=i) for i in range(24)]
        from precode.networks import training
        needed = []
        training.memory.check = lambda bytes_, what, remedy: needed.append(bytes_)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pc.train([task] * 24, hidden=[8, 8], data=data, epochs=1, batch=4096)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(grown, max(needed), sum(item.nbytes for item in data))
    """
    done = child(code)
    assert done.returncode == 0, done.stderr[-2000:]
    grown, needed, packed = map(int, done.stdout.split())
    assert grown <= needed, f"{grown} bytes, estimated {needed}, packed {packed}"
    # Data are held as one byte a variable, slab by slab; the packed bits are given and not counted.
    assert needed > 2 * packed


def test_control_groups_limit_memory(tmp_path):
    membership, mount = tmp_path / "cgroup", tmp_path / "fs"

    def group(path: str, files: dict[str, object]) -> None:
        (mount / path).mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (mount / path / name).write_text(f"{value}\n")

    def rooms() -> list[int]:
        return [room for room, _ in memory.control_groups(membership, mount)]

    membership.write_text("0::/batch/job\n")
    group("batch", {"memory.max": 1000, "memory.current": 700, "memory.stat": "anon 5\ninactive_file 100"})
    group("batch/job", {"memory.max": "max", "memory.current": 600, "memory.stat": "inactive_file 0"})
    assert rooms() == [400]
    # Within a container, the group is the root of what is mounted.
    membership.write_text("0::/not/here\n")
    group("", {"memory.max": 500, "memory.current": 100, "memory.stat": "inactive_file 0"})
    assert rooms() == [400]
    membership.write_text("11:cpu,memory:/slice\n10:pids:/slice\n")
    group(
        "memory/slice",
        {"memory.limit_in_bytes": 900, "memory.usage_in_bytes": 500, "memory.stat": "total_inactive_file 50"},
    )
    assert rooms() == [450]
    assert list(memory.control_groups(tmp_path / "none", mount)) == []


def test_the_limits_of_this_process_are_seen():
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    room, limit = memory.free()
    assert room > 0
    assert soft != resource.RLIM_INFINITY or "RLIMIT_AS" not in limit


# --- the boundary: signals, the interpreter's lock, panics


def test_computations_answer_signals_and_release_the_lock():
    code = """
        import signal, threading, time
        beats, alarms = [], []
        signal.signal(signal.SIGALRM, lambda *_: alarms.append(time.perf_counter()))
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        done = threading.Event()
        def beat():
            while not done.is_set():
                beats.append(time.perf_counter())
                time.sleep(0.005)
        thread = threading.Thread(target=beat)
        rng = np.random.default_rng(0)
        w1, w2 = rng.normal(size=(64, 256, 64)).astype("f4"), rng.normal(size=(64, 256)).astype("f4")
        clauses = pc.Dnf.random(variables=64, clauses=512, seed=0)
        thread.start()
        start = time.perf_counter()
        while time.perf_counter() < start + 1:
            before = time.perf_counter()
            pc.decode(w1, w2, clauses)
            took = time.perf_counter() - before
        done.set()
        thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        gaps = np.diff(beats)
        print(took, gaps.max(), np.diff(alarms).max())
    """
    done = child(code)
    assert done.returncode == 0, done.stderr[-2000:]
    _, gap, alarm = map(float, done.stdout.split())
    # Bounds for a machine that does other things, too.
    assert alarm < 1
    assert gap < 1


def test_a_search_in_a_module_ends_with_ctrl_c():
    code = """
        import os, signal, threading, time
        module = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 2))
        x, y = torch.randn(256, 64), torch.randint(2, (256,))
        threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.perf_counter()
        try:
            pc.find_ticket(module, "imp", 0.01, [(x, y)] * 50, nn.functional.cross_entropy, epochs=1000)
        except KeyboardInterrupt:
            print("interrupted", time.perf_counter() - start)
        pc.find_ticket(module, "snip", 0.1, (x, y), nn.functional.cross_entropy)
        print("alive")
    """
    done = child(code)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("interrupted")
    assert done.stdout.endswith("alive\n")


def test_a_module_may_use_precode_while_a_search_waits_for_it():
    calls = []

    def train(module):
        runs = pc.train(TASK, hidden=8, samples=64, epochs=1)
        calls.append(runs.codes().code_size())
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(2)

    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    ticket = pc.find_ticket(module, "magnitude", 0.5, train=train)
    assert len(calls) == 1
    assert ticket.kept == 72


def test_user_code_runs_in_the_thread_that_asked():
    import threading

    threads = set()

    def loss(output, y):
        threads.add(threading.get_ident())
        return nn.functional.cross_entropy(output, y)

    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    data = (torch.randn(32, 16), torch.randint(2, (32,)))
    pc.find_ticket(module, "snip", 0.5, data, loss)
    assert threads == {threading.get_ident()}

    def broken(output, y):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        pc.find_ticket(module, "snip", 0.5, data, broken)


def test_masks_found_in_inference_mode_are_ordinary_tensors():
    module = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.inference_mode():
        ticket = pc.find_ticket(module, "magnitude-init", 0.5)
    assert not any(mask.is_inference() for mask in ticket.masks.values())


def test_of_several_failing_tasks_the_first_is_named():
    # Each of the others has too few variables for these counts, and says how many it has.
    bad = [pc.Dnf([[0]], variables) for variables in (3, 2, 1)]
    for tasks, expected in (([TASK, *bad, *bad], "3 variables"), ([TASK] * 7 + bad[::-1] * 9, "1 variables")):
        formulas = [task._formula for task in tasks]
        for _ in range(20):
            with pytest.raises(pc.PrecodeValueError, match=f"<= {expected}"):
                _precode.sample_all(formulas, COUNTS, 5000, 0, [0] * len(tasks), "train")


# --- controls


@pytest.mark.parametrize("control", ["shuffle-row", "shuffle-column", "shuffle-layer"])
def test_shuffles_are_fast_and_keep_what_they_promise(control):
    module = nn.Sequential(nn.Linear(512, 2048, bias=False), nn.ReLU(), nn.Linear(2048, 2))
    start = time.process_time()
    shuffled = pc.find_ticket(module, f"magnitude-init:{control}", 0.1, prunable=["0.weight"], seed=3)
    assert time.process_time() - start < 5
    plain = pc.find_ticket(module, "magnitude-init", 0.1, prunable=["0.weight"], seed=3)
    ours, theirs = shuffled.masks["0.weight"], plain.masks["0.weight"]
    assert not torch.equal(ours, theirs)
    if control != "shuffle-layer":
        axis = 1 if control == "shuffle-row" else 0
        assert torch.equal(ours.sum(axis), theirs.sum(axis))
    assert ours.sum() == theirs.sum()


# --- probes without the formula


def test_clauses_of_one_variable_are_recovered():
    task = pc.Dnf([[9], [4], [12], [7]], variables=16)
    runs = pc.train([task] * 2, hidden=16, samples=4000, epochs=6)
    table = pc.find_tickets(runs, "distance-blind", 0.25).table()
    assert table["clauses_found"].tolist() == [4, 4]
    assert table["clauses_recovered"].tolist() == [4, 4]


def test_fewer_clauses_than_sought_are_enough():
    module = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    x = (torch.rand(256, 6) < 0.5).float()
    y = (x[:, :4].sum(1) == 4).long()
    ticket = pc.find_ticket(module, "distance+motion-blind", 0.25, (x, y), nn.functional.cross_entropy, epochs=3)
    assert ticket.kept == 64
    # Of 6 variables there are 15 clauses of 4; 16 were sought, half as many as rows.
    assert ticket.config["notes"]["clauses_recovered"] == 15


# --- what a probe costs


class Counted:
    """Batches that tell each time that one is drawn; what they counted themselves would be put back."""

    def __init__(self, batches, tell):
        self.batches, self.tell = batches, tell

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.tell(batch)
            yield batch


@pytest.mark.parametrize(
    ("method", "epochs"),
    [
        ("motion", 1),
        ("distance+motion", 2),
        ("distance-blind", 2),
        ("motion-blind", 2),
        ("distance+motion-blind", 2),
        ("magnitude", 12),
        ("imp-rewind", None),
        ("early-bird", None),
    ],
)
def test_the_cost_of_a_probe_is_what_ran(method, epochs):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x = (torch.rand(64, 8) < 0.5).float()
    y = (x[:, :4].sum(1) == 4).long()
    drawn = []
    data = Counted([(x[:32], y[:32]), (x[32:], y[32:])], drawn.append)
    task = pc.Dnf([[0, 1, 2, 3]], 8)
    ticket = pc.find_ticket(
        module, method, 0.5, data, nn.functional.cross_entropy, epochs=12, clauses=task, layers=("0", "2"), output=1
    )
    # One batch is drawn to look at it.
    assert (len(drawn) - 1) / 2 == ticket.cost["epochs"]
    if epochs is not None:
        assert ticket.cost["epochs"] == epochs
    if method == "early-bird":
        assert ticket.cost["epochs"] == ticket.config["notes"]["found_at_epoch"] < 12


def test_early_bird_costs_each_network_its_own_epochs():
    runs = pc.train([pc.Dnf.random(clauses=4, seed=0, index=i) for i in range(4)], hidden=8, samples=640, epochs=12)
    tickets = pc.find_tickets(runs, "early-bird", [0.5, 0.25])
    for found in tickets:
        assert found.epochs.tolist() == found.notes["found_at_epoch"].tolist()
        alone = pc.train(
            runs.tasks[2],
            data=runs.data[2],
            init={k: v[2:3] for k, v in runs.start.weights.items()},
            epochs=12,
            indices=2,
        )
        (single,) = pc.find_tickets(alone, "early-bird", found.density)
        assert single.epochs.tolist() == found.epochs[2:3].tolist()
    table = tickets.table()
    assert table["dense_epochs"].tolist() == table["found_at_epoch"].tolist()


# --- Ctrl-C


@pytest.mark.parametrize("options", [{"hidden": 256}, {"hidden": [2048, 2048], "batch": 2048}])
def test_ctrl_c_ends_training(options, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import precode as pc, time\n"
        "task = pc.Dnf.random(seed=0)\n"
        "data = task.sample(20_000)\n"
        "print('go', flush=True)\n"
        f"pc.train([task] * 8, data=data, epochs=10_000, **{options!r})\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    start = time.perf_counter()
    _, errors = process.communicate(timeout=120)
    assert "KeyboardInterrupt" in errors
    print(Path(script).name, time.perf_counter() - start)
