"""Callbacks beside a plain loop, with the real packages; skipped where these are not installed."""

import copy

import pytest
import torch
from torch import nn

import precode as pc

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What the packages say about the machine, about each other and about torch.
    pytest.mark.filterwarnings("ignore"),
]

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (48,), generator=torch.Generator().manual_seed(1))
SCHEDULE = pc.Schedule("cubic", density=0.2, start=1, end=9, every=2)


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def followed(network):
    return pc.Pruner(network, SCHEDULE), pc.watch(network, every=4, densities=0.2)


def plain_loop(network, parts, epochs):
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    with parts[0], parts[1]:
        for _ in range(epochs):
            for first in range(0, 48, 8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(X[first : first + 8]), Y[first : first + 8]).backward()
                optimizer.step()
    return network


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-6)


def check(network, parts, expected, expected_parts):
    same(network, expected)
    assert parts[0].table().equals(expected_parts[0].table())
    assert parts[0].ticket().kept == round(0.2 * 72)
    assert not network[0].weight[~parts[0].ticket().masks["0.weight"]].any()
    assert parts[1].recorded == expected_parts[1].recorded
    ours, theirs = parts[1].table(), expected_parts[1].table()
    torch.testing.assert_close(torch.tensor(ours.to_numpy()), torch.tensor(theirs.to_numpy()), rtol=1e-4, atol=1e-6)


def lightning_fit(network, parts, tmp_path, epochs, checkpoint=None, fail=False, others=()):
    pl = pytest.importorskip(
        "pytorch_lightning", reason="pytorch-lightning is not installed: pip install precode[lightning]"
    )

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def training_step(self, batch, number):
            if fail and self.global_step == 4:
                raise RuntimeError("planned")
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[
            pc.callbacks.LightningCallback(*parts),
            *others,
            pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1),
        ],
    )
    data = torch.utils.data.TensorDataset(X, Y)
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=8), ckpt_path=checkpoint)
    return network


def test_lightning_trains_as_the_plain_loop_does_and_goes_on(tmp_path):
    expected = mlp()
    expected_parts = followed(expected)
    plain_loop(expected, expected_parts, 2)
    network = mlp()
    parts = followed(network)
    check(lightning_fit(network, parts, tmp_path, 2), parts, expected, expected_parts)
    resumed = mlp()
    parts = followed(resumed)
    lightning_fit(resumed, parts, tmp_path / "again", 2, tmp_path / "epoch=0.ckpt")
    check(resumed, parts, expected, expected_parts)


def test_lightning_leaves_no_hooks_after_an_exception(tmp_path):
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    before = len(_global_optimizer_pre_hooks)
    network = mlp()
    parts = followed(network)
    with pytest.raises(RuntimeError, match="planned"):
        lightning_fit(network, parts, tmp_path, 2, fail=True)
    assert len(_global_optimizer_pre_hooks) == before
    assert parts[1].recorded == [0, 4]


@pytest.mark.parametrize("buffers", [False, True])
def test_lightnings_averages_keep_their_masks_without_buffers(buffers, tmp_path):
    pl = pytest.importorskip(
        "pytorch_lightning", reason="pytorch-lightning is not installed: pip install precode[lightning]"
    )
    if not hasattr(pl.callbacks, "EMAWeightAveraging"):
        pytest.skip("this pytorch-lightning has no EMAWeightAveraging")
    network = mlp()
    parts = followed(network)
    average = pl.callbacks.EMAWeightAveraging(decay=0.9, use_buffers=buffers)
    if buffers:
        with pytest.warns(pc.TicketWarning, match="masks keep 72 weights, and those that this Pruner set keep 14"):
            lightning_fit(network, parts, tmp_path, 2, others=[average])
    else:
        lightning_fit(network, parts, tmp_path, 2, others=[average])
        assert parts[0].ticket().kept == round(0.2 * 72)


def test_what_fabric_wraps_is_looked_through():
    lightning = pytest.importorskip(
        "lightning_fabric", reason="pytorch-lightning is not installed: pip install precode[lightning]"
    )
    fabric = lightning.Fabric(accelerator="cpu", devices=1)
    network, expected = mlp(), mlp()
    wrapped, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), 0.1))
    ticket = pc.find_ticket(wrapped, "snip", 0.5, (X, Y), nn.functional.cross_entropy)
    assert ticket == pc.find_ticket(expected, "snip", 0.5, (X, Y), nn.functional.cross_entropy)
    steps = torch.optim.SGD(expected.parameters(), 0.1)
    ticket.apply_(wrapped)
    ticket.apply_(expected)
    for _ in range(3):
        optimizer.zero_grad()
        fabric.backward(nn.functional.cross_entropy(wrapped(X), Y))
        optimizer.step()
        steps.zero_grad()
        nn.functional.cross_entropy(expected(X), Y).backward()
        steps.step()
    same(network, expected)
    plain = mlp()
    plain.load_state_dict(pc.plain_state_dict(wrapped))
    assert torch.equal(plain(X), wrapped(X))
    # A part of a module.
    outer = nn.Sequential(fabric.setup_module(mlp()), nn.Linear(3, 2))
    pc.find_ticket(outer, "magnitude-init", 0.5).apply_(outer)
    assert pc.Ticket.from_parametrized(outer).masks.keys() == {"0.0.weight", "0.2.weight", "1.weight"}
    plain = nn.Sequential(mlp(), nn.Linear(3, 2))
    plain.load_state_dict(pc.plain_state_dict(outer))
    assert torch.equal(plain(X), outer(X))


def trainer_of(network, parts, tmp_path, epochs, **options):
    reason = "transformers is not installed: pip install precode[transformers]"
    transformers = pytest.importorskip("transformers", reason=reason)
    pytest.importorskip("accelerate", reason=reason)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, labels):
            logits = self.network(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *args, **kwargs):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=epochs,
        per_device_train_batch_size=8,
        use_cpu=True,
        report_to=[],
        save_strategy="epoch",
        disable_tqdm=True,
        max_grad_norm=0,
        optim="sgd",
        optim_args="momentum=0.9",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        **options,
    )
    return InOrder(
        Wrapped(),
        arguments,
        train_dataset=[{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)],
        callbacks=[pc.callbacks.TrainerCallback(*parts)],
    )


def test_the_trainer_trains_as_the_plain_loop_does_and_goes_on(tmp_path):
    expected = mlp()
    expected_parts = followed(expected)
    network = mlp()
    parts = followed(network)
    trainer_of(network, parts, tmp_path, 2).train()
    plain_loop(expected, expected_parts, 2)
    check(network, parts, expected, expected_parts)
    resumed = mlp()
    parts = followed(resumed)
    trainer_of(resumed, parts, tmp_path, 2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    check(resumed, parts, expected, expected_parts)
    (tmp_path / "checkpoint-6" / "precode.pt").unlink()
    lost = mlp()
    trainer = trainer_of(lost, followed(lost), tmp_path, 2)
    with pytest.raises(pc.PrecodeFileError, match=r"the precode\.pt of the checkpoint of step 6 .* is not in "):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_the_trainer_goes_on_from_the_checkpoint_that_it_is_given(tmp_path):
    expected = mlp()
    expected_parts = followed(expected)
    trainer_of(expected, expected_parts, tmp_path / "first", 2).train()
    other = mlp()
    with torch.no_grad():
        other[0].weight.neg_()
    trainer_of(other, followed(other), tmp_path / "other", 1).train()
    # One folder has a checkpoint of the same step already, the other has none.
    for folder in ("other", "new"):
        resumed = mlp()
        parts = followed(resumed)
        trainer = trainer_of(resumed, parts, tmp_path / folder, 2)
        trainer.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-6"))
        check(resumed, parts, expected, expected_parts)
        assert parts[0].ticket() == expected_parts[0].ticket()
    moved = (tmp_path / "first").rename(tmp_path / "moved") / "checkpoint-6"
    lost = mlp()
    trainer = trainer_of(lost, followed(lost), tmp_path / "other", 2)
    with pytest.raises(pc.PrecodeFileError, match=r"name the checkpoint's folder in TrainingArguments"):
        trainer.train(resume_from_checkpoint=str(moved))
    resumed = mlp()
    parts = followed(resumed)
    trainer = trainer_of(resumed, parts, tmp_path / "other", 2, resume_from_checkpoint=str(moved))
    trainer.train(resume_from_checkpoint=str(moved))
    check(resumed, parts, expected, expected_parts)
    assert parts[0].ticket() == expected_parts[0].ticket()


def test_the_trainer_does_not_go_on_from_a_checkpoint_without_the_callback(tmp_path):
    network = mlp()
    parts = followed(network)
    trainer = trainer_of(network, parts, tmp_path, 1)
    trainer.remove_callback(pc.callbacks.TrainerCallback)
    trainer.train()
    trainer = trainer_of(network, parts, tmp_path, 2)
    with pytest.raises(pc.PrecodeFileError, match="step 6 that the trainer goes on from was written without this"):
        trainer.train(resume_from_checkpoint=True)


def test_accumulated_batches_are_one_step(tmp_path):
    network = mlp()
    parts = followed(network)
    trainer_of(network, parts, tmp_path, 4, gradient_accumulation_steps=3).train()
    assert parts[0].steps == parts[1].steps == 8


def test_a_language_model_of_transformers_is_pruned_and_saved(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    pruner = pc.Pruner(model, pc.Schedule("linear", density=0.5, end=4))
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=6,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    ids = torch.randint(11, (16, 8), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "labels": row} for row in ids]
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, callbacks=[pc.callbacks.TrainerCallback(pruner)]
    )
    trainer.train()
    ticket = pruner.ticket()
    assert ticket.kept == round(0.5 * ticket.total)
    expected = model.eval()(ids).logits
    plain = ticket.remove_(copy.deepcopy(model))
    plain.save_pretrained(tmp_path / "plain")
    loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "plain")
    assert torch.equal(loaded(ids).logits, expected)


def test_what_callbacks_cannot_follow_is_refused():
    pytest.importorskip("transformers", reason="transformers is not installed")
    for wrong in ((), (nn.Linear(1, 1),)):
        with pytest.raises(pc.PrecodeTypeError, match=r"takes what precode\.watch returns"):
            pc.callbacks.TrainerCallback(*wrong)


def test_a_missing_package_is_named(monkeypatch):
    import sys

    for name in ("lightning.pytorch", "pytorch_lightning", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("lightning", "trainer"):
        monkeypatch.delitem(sys.modules, f"precode.callbacks.{name}", raising=False)
    with pytest.raises(pc.PrecodeError, match=r"pip install 'precode\[lightning\]'"):
        pc.callbacks.LightningCallback  # noqa: B018
    with pytest.raises(pc.PrecodeError, match=r"pip install 'precode\[transformers\]'"):
        pc.callbacks.TrainerCallback  # noqa: B018
