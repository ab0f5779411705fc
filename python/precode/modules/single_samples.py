"""The gradients of single samples in any module, told from the calls of its layers or taken one by one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from precode._internal.errors import PrecodeError, UnsupportedError
from precode.modules import gradients, training
from precode.modules.batches import SCORING, one_sample, samples
from precode.modules.gradients import Tensors
from precode.modules.layers import Watch
from precode.modules.learner import Learner

NEAR = {True: 1e-3, False: 5e-2}
"""Relative difference up to which two ways to the gradient of a sample agree, by whether all types are wide."""

APART = (
    "this method needs the gradients of single samples, which cannot be told apart in this module: its layers must be "
    "called on the samples of the batch, along the first axis and in their order (with use_reentrant=False, where they "
    "are checkpointed)"
)

BATCH_NORMS = nn.modules.batchnorm._BatchNorm


class SingleSamples(Learner):
    """A module and what it is to learn, sample by sample.

    The gradient of a sample is its own term in the gradient of the batch, times the samples of the batch; without batch
    normalization, that is the gradient of its loss alone. Terms are told from the calls of the layers, which takes one
    pass. Some samples are compared with what they give alone; where that is something else, samples are taken one by
    one.
    """

    _copies = 1
    """Of a sample that is taken alone."""

    def fisher(self, at: Tensors) -> torch.Tensor:
        """Empirical Fisher matrix of all prunable weights together, (weights, weights), float64, on all data.

        Raises:
            UnsupportedError: samples that cannot be told apart.
        """
        fisher = torch.zeros((), dtype=torch.float64, device="cpu")
        count, weight = 0, 0.0
        watch = self._watch()
        with self._data().isolated(), self._at(at):
            alone: bool | None = None
            for x, y in self._data().epoch(SCORING):
                if not self._data().weight(x, y):  # all its labels are ignored
                    continue
                alone = self._must_be_alone(watch, x, y) if alone is None else alone
                told = None if alone or watch is None else self._rows(watch, x, y)
                rows = self._rows_alone(x, y) if told is None else told
                fisher = fisher + rows.T @ rows
                count, weight = count + samples(x), weight + self._data().weight(x, y)
        if watch is not None and not alone:
            watch.check_called()
        # Labels of a sample are as many as of the mean sample, however the data are cut.
        return fisher * (count / weight) ** 2 / count

    def _watch(self) -> Watch | None:
        """What watches the layers, if all weights are of some that can be watched."""
        try:
            return Watch(self._slots, self._prunable, strict=False)
        except UnsupportedError:
            return None

    def _rows(self, watch: Watch, x: Any, y: Any) -> torch.Tensor | None:
        """The gradients of a batch's samples by the calls of the layers, (samples, weights), times their labels.

        None where they cannot be told.
        """
        with torch.inference_mode(False), torch.enable_grad():
            with watch:
                loss = self._loss_of(self._module, x, y)
            self._others(loss, training.trainable(self._module))
            rows = watch.gradients(loss, samples(x))
        self._put_back()
        return None if rows is None else rows * self._data().weight(x, y)

    def _rows_alone(self, x: Any, y: Any) -> torch.Tensor:
        """The same, one by one.

        Raises:
            UnsupportedError: batch normalization in training mode.
        """
        if any(isinstance(layer, BATCH_NORMS) and layer.training for layer in self._module.modules()):
            raise UnsupportedError(f"{APART}: batch normalization in training mode mixes them")
        return torch.stack([self._row(x, y, place) for place in range(samples(x))])

    def _row(self, x: Any, y: Any, place: int) -> torch.Tensor:
        """The gradient of one sample, (weights,), times its labels."""
        x, y = self._alone(x, y, place)
        weight = self._data().weight(x, y) / self._copies
        trained = training.trainable(self._module)
        parameters = [self._slots[name].parameter for name in self._prunable]
        if not weight:  # its labels are all ignored
            return torch.zeros(sum(each.numel() for each in parameters), dtype=torch.float64, device="cpu")
        with torch.inference_mode(False), torch.enable_grad():
            loss = self._loss_of(self._module, x, y)
            gradients.backward(loss, trained, self._others(loss, trained))
            found = gradients.taken(self._prunable, parameters)
        self._module.zero_grad()
        self._put_back()
        layouts = [self.layouts[name] for name in self._prunable]
        rows = [layout.canonical(gradient).flatten() for layout, gradient in zip(layouts, found, strict=True)]
        return torch.cat(rows).to("cpu", torch.float64) * weight

    def _must_be_alone(self, watch: Watch | None, x: Any, y: Any) -> bool:
        """Whether the calls of the layers do not tell the terms of samples in the gradient of a batch.

        Some samples are compared with what they give alone, in evaluation mode.

        Raises:
            UnsupportedError: the samples cannot be taken alone.
        """
        modes = {layer: layer.training for layer in self._module.modules()}
        near = max(NEAR[slot.parameter.element_size() > 2] for slot in self._slots.values())
        self._module.eval()
        try:
            with gradients.searchable(self._module):
                self._find_copies(x, y)
                rows = None if watch is None else self._rows(watch, x, y)
                places = sorted({0, samples(x) // 2, samples(x) - 1})
                alone = torch.stack([self._row(x, y, place) for place in places])
                if rows is not None and _are_near(rows[places], alone, near):
                    return False
                whole, mean = self._losses(x, y)
            if abs(whole - mean) > near * max(abs(whole), abs(mean)):
                raise UnsupportedError(f"{APART}, or the loss of a batch must be the mean of those of its samples")
            return True
        except PrecodeError:
            raise
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            raise UnsupportedError(f"{APART} ({said})") from error
        finally:
            for layer, mode in modes.items():
                layer.training = mode

    def _alone(self, x: Any, y: Any, place: int) -> tuple[Any, Any]:
        """A batch of one sample of a batch."""
        n = samples(x)
        return one_sample(x, n, place, self._copies), one_sample(y, n, place, self._copies)

    def _find_copies(self, x: Any, y: Any) -> None:
        """How many copies of a sample a batch needs: two where the module or the loss takes no batch of one."""
        for self._copies in (1, 2):
            try:
                with torch.inference_mode(False), torch.enable_grad():
                    self._loss_of(self._module, *self._alone(x, y, 0))
                return
            except PrecodeError:
                raise
            except Exception:
                if self._copies == 2:
                    raise
            finally:
                self._put_back()

    def _losses(self, x: Any, y: Any) -> tuple[float, float]:
        """The loss of a batch, and the mean of those of its samples alone."""
        total = 0.0
        with torch.inference_mode(False), torch.enable_grad():  # which a module may take itself
            for place in range(samples(x)):
                alone = self._alone(x, y, place)
                if weight := self._data().weight(*alone):
                    total += float(self._loss_of(self._module, *alone).detach()) * weight / self._copies
                self._put_back()
            whole = float(self._loss_of(self._module, x, y).detach())
            self._put_back()
        return whole, total / self._data().weight(x, y)


def _are_near(rows: torch.Tensor, others: torch.Tensor, near: float) -> bool:
    """Whether rows are the same but for rounding, and for one factor: a sum over the batch has another than a mean."""
    size = float(others.square().sum())
    factor = float((rows * others).sum()) / size if size else 1.0
    apart = torch.linalg.vector_norm(rows - factor * others, dim=1)
    return factor > 0 and bool((apart <= near * torch.linalg.vector_norm(rows, dim=1)).all())
