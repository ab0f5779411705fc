"""A module and what it is to learn, of which only copies are evaluated and trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from precode._internal import memory
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError, PrecodeValueError
from precode._internal.parts import all_finite
from precode._internal.randomness import Purpose, Randomness, held_by
from precode.modules import gradients, training, zeros
from precode.modules.batches import ONE_SAMPLE, Batches, call, called, mapped, one_tensor, owned
from precode.modules.copies import State, copied
from precode.modules.gradients import Tensors
from precode.modules.layouts import Layout, layout
from precode.modules.training import OptimizerFactory
from precode.tickets import masked

Loss = Callable[..., torch.Tensor]
"""From outputs and labels, and the module if it takes a third argument, to the mean loss of a batch."""

UNTRAINED = (
    "train left the module that it was given as it was: unless it was trained before, the ticket is that of untrained "
    "weights; train must train its argument in place"
)


HOOKED = (
    "gradients of '{}' have hooks (Tensor.register_hook and the like), which copies do not have: what is searched is "
    "the training without them; register them in train=, on the module that it is given"
)


CHANGED = (
    "'{}' of the module that was passed in changed during the search, as by a loss or a function that it holds that "
    "uses the module itself: tickets are found on copies, and start from the values that it had"
)

UNMASKED = (
    "train left weights of '{}' other than zero that were pruned; they are zero again. They do not stay at zero "
    "where it trains other parameters than those of the module that it is given, such as those of a new module"
)

LEFT = (
    "the loss has gradients in parameters that are not of the module, of shapes {}, which the default training leaves "
    "as they are: if they are to be trained too, as those of a head or of proxies, pass train=; else freeze them by "
    "requires_grad_(False)"
)

COLLAPSED = "after training all weights of '{}' are equal, so that those kept there are kept for their place alone"
"""What is said of layers that training left without differences."""


class Learner:
    """A module and what it is to learn. Only copies of it are evaluated and trained.

    Each layer of a copy is in the mode that it has in the module; a module that is in evaluation mode throughout is put
    in training mode, as by the first training step.

    Args:
        module: the module.
        prunable: names of the parameters to prune.
        batches: the data, or None.
        loss: the loss, or None.
        train: trains a module in place instead of the default loop, or None.
        epochs: epochs of the default loop.
        optimizer: makes the optimizer of the default loop.
        randomness: what everything random is drawn with, as the batches are.

    Raises:
        PrecodeTypeError: the module cannot be copied.
        PrecodeValueError: a batch of one sample, of which the module cannot be trained.
    """

    def __init__(
        self,
        module: nn.Module,
        prunable: Sequence[str],
        batches: Batches | None,
        loss: Loss | None,
        train: Callable[[nn.Module], Any] | None,
        epochs: int,
        optimizer: OptimizerFactory,
        randomness: Randomness,
    ) -> None:
        self._original, self._module = module, copied(module)
        if not any(layer.training for layer in self._module.modules()):
            self._module.train()
        self._slots = masked.slots(self._module)
        self._names = list(self._slots)
        self._prunable = list(prunable)
        self._layouts = [layout(slot) for slot in self._slots.values()]
        self._state = State(self._module)
        self._batches, self._loss, self._train = batches, loss, train
        # Criteria that a function uses count as well.
        self._loss_state = State(nn.ModuleList(each for each in held_by([loss]) if isinstance(each, nn.Module)))
        self._loss_takes_module = loss is not None and training.takes_module(loss)
        self._optimizer, self.randomness, self.epochs = optimizer, randomness, epochs
        originals = masked.slots(module)
        self._originals = {id(slot.parameter): name for name, slot in originals.items()}
        # A function of the user's own may train the original, which is given these values again.
        shared = train is None and not any(slot.pruned or slot.parameter.is_inference() for slot in originals.values())
        initial = [slot.parameter.detach() for slot in originals.values()] if shared else self._values(self._module)
        # Not recurrent layers, whose weights lie side by side for the sake of a device.
        owners = zip(self._slots.items(), initial, strict=True)
        self._resting = {name: value for (name, slot), value in owners if not isinstance(slot.owner, nn.RNNBase)}
        self._rest()
        self._versions = {name: value._version for name, value in zip(self._names, initial, strict=True) if shared}
        # Asked for by name from Rust, as are `epochs` and `steps_per_epoch`.
        self.parameters = [
            (name, value, name in prunable) for name, value in zip(self._names, self._out(initial), strict=True)
        ]
        self._is_known = False  # whether a call makes no parameters
        self.said = [] if batches is None else list(batches.said)  # doubts about the data and the training
        hooked = [name for name, slot in originals.items() if _has_hooks(slot.parameter)]
        if hooked and (batches is not None or train is not None):
            self.said.append(HOOKED.format("', '".join(hooked)))
        self.steps_per_epoch = batches.steps if batches else 1
        if batches is not None and batches.has_single():
            self._check_single(batches)

    @property
    def layouts(self) -> dict[str, Layout]:
        """How the weights of all parameters stand, by name."""
        return dict(zip(self._names, self._layouts, strict=True))

    @property
    def prunable(self) -> list[str]:
        """Names of the parameters to prune."""
        return list(self._prunable)

    def check_original(self) -> None:
        """Refuses a search during which the module was changed, whose values are the initial ones.

        Raises:
            PrecodeValueError: it was.
        """
        slots = masked.slots(self._original)
        for name, version in self._versions.items():
            if name not in slots or slots[name].parameter._version != version:
                raise PrecodeValueError(CHANGED.format(name))
        if name := self._state.differs(self._original):
            raise PrecodeValueError(f"{CHANGED.format(name)}; it has its values again")

    def restore_buffers(self) -> None:
        """Gives the module the buffers that it had."""
        self._state.put(self._original)

    def belongs_to(self, module: nn.Module) -> None:
        """Says of what other module of the user's this one is a copy, whose parameters no loss may depend on either."""
        self._originals |= {id(slot.parameter): name for name, slot in masked.slots(module).items()}

    def copy(self) -> nn.Module:
        """A copy of the module, in the modes that it is trained in."""
        return self._network([value for _, value, _ in self.parameters], None)

    def fit(
        self,
        network: nn.Module,
        epochs: range,
        snapshots: Sequence[int] = (),
        rate: float = 1.0,
        masks: Mapping[str, torch.Tensor] | None = None,
    ) -> list[Tensors]:
        """Trains a copy in place, by the user's function or for some epochs; the values after some steps.

        The default loop's learning rate is `rate` times that of the optimizer. Weights are kept at zero where their
        mask, by name and as they stand in the module, is False.

        Raises:
            PrecodeValueError: the user's function trains another module.
        """
        pruned = zeros.kept(network, masks or {})
        with self._loss_put_back(), self._isolated(), torch.inference_mode(False), torch.enable_grad(), pruned:
            self.randomness.reseed(Purpose.TRAINING)
            if self._train is None:
                optimizer, wanted = training.optimizer_of(network, self._optimizer), set(snapshots)
                for group in optimizer.param_groups:
                    group["lr"] = group["lr"] * rate  # not in place: it may be a tensor of the user's
                done = chain([0], self._steps(network, epochs, optimizer))
                values = [self._out(self._values(network)) for step in done if step in wanted]
                zeros.left(network, masks or {})
                return values
            before = {name: value.detach().clone() for name, value in network.named_parameters()}
            try:
                with self._without_gradients() as used:
                    returned = self._train(network)
            finally:
                changed = self._restore_original()
            if changed:
                raise PrecodeValueError(
                    "train trained the module that find_ticket was called with, which has its values again, and not "
                    "the one that it was given: it must train its argument, a copy, in place"
                )
            if used:
                raise PrecodeValueError(
                    f"train took gradients in '{used[0]}' of the module that find_ticket was called with: it must "
                    "train its argument, a copy, and detach what it takes from the module itself; functions and hooks "
                    "that the module holds must use the layer they are given"
                )
            training.check_returned(network, returned)
            if names := zeros.left(network, masks or {}):
                self._say(UNMASKED.format("', '".join(names)))
            if not training.is_moved(network, before):
                self._say(UNTRAINED)
            return []

    @contextmanager
    def _loss_put_back(self) -> Iterator[None]:
        """Within the block a loss may change its state, as in a training; it has what it had afterwards."""
        try:
            yield
        finally:
            self._loss_state.put_back()

    # Values

    def _in(self, values: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Values of all parameters as they stand in the module, one by one."""
        return (each.original(value.detach()) for each, value in zip(self._layouts, values, strict=True))

    def _out(self, values: Tensors) -> Tensors:
        """Values of all parameters as methods see them."""
        return [each.canonical(value) for each, value in zip(self._layouts, values, strict=True)]

    def _values(self, network: nn.Module) -> Tensors:
        """Copies of the values of all parameters, zero where they are pruned."""
        slots = self._check_names(network)
        every = [slots[name] for name in self._names]
        return [slot.values().clone() if slot.mask is None else slot.values() for slot in every]

    def _rest(self) -> None:
        """Takes the memory of the copy away while nobody computes with it."""
        for name, value in self._resting.items():
            self._slots[name].parameter.data = value.new_zeros(()).expand(value.shape)
        memory.trim()

    def _put_back(self) -> None:
        """Gives the copy, and the loss, the state that they had."""
        self._state.put_back()
        self._loss_state.put_back()

    def _room(self, slots: dict[str, masked.Slot]) -> None:
        """Gives the copy, or a copy of it, memory for its values."""
        for name, value in self._resting.items():
            slots[name].parameter.data = torch.empty_like(value)

    @contextmanager
    def _at(self, at: Iterable[torch.Tensor]) -> Iterator[None]:
        """Within the block, the copy has other values; its buffers are those of the module again afterwards."""
        self._room(self._slots)
        for slot, value in zip(self._slots.values(), self._in(at), strict=True):
            slot.put(value)
        try:
            yield
            if not self._is_known:
                self._check_names(self._module)
                self._is_known = True
        finally:
            self._put_back()
            self._rest()

    def _check_names(self, network: nn.Module) -> dict[str, masked.Slot]:
        """The parameters of a copy, which must be those of the module.

        Raises:
            PrecodeValueError: some are new, or missing.
        """
        slots = masked.slots(network)
        if others := sorted(slots.keys() ^ set(self._names)):
            raise PrecodeValueError(
                f"the module has other parameters once it was called or trained ({', '.join(others[:5])}): call one "
                "that makes layers in its forward on a batch before; train= must leave them where they are"
            )
        return slots

    def _network(self, start: Tensors, masks: Tensors | None) -> nn.Module:
        """A copy of the module at other values, zero where they are pruned."""
        network = copied(self._module)
        slots = masked.slots(network)
        self._room(slots)
        for name, value in zip(self._names, self._in(start), strict=True):
            slots[name].put(value)
        for name, mask in self._named(masks).items():
            slots[name].put(slots[name].parameter * mask)
        memory.trim()
        return network

    def _named(self, masks: Tensors | None) -> dict[str, torch.Tensor]:
        """Masks of the prunable parameters as they stand in the module, by name."""
        pairs = zip(self._prunable, masks or [], strict=masks is not None)
        return {name: self.layouts[name].original(mask) for name, mask in pairs}

    @contextmanager
    def _without_gradients(self) -> Iterator[list[str]]:
        """Within the block, the user's module has no gradients; afterwards it has its own again.

        The list has the names of those that got some.
        """
        slots, used = masked.slots(self._original), list[str]()
        held = {name: slot.parameter.grad for name, slot in slots.items()}
        for slot in slots.values():
            slot.parameter.grad = None
        try:
            yield used
        finally:
            for name, slot in slots.items():
                if slot.parameter.grad is not None:
                    used.append(name)
                slot.parameter.grad = held[name]

    def _restore_original(self) -> bool:
        """Gives the user's module back the values it had; whether it had others."""
        slots, changed = masked.slots(self._original), False
        for (name, value, _), each in zip(self.parameters, self._layouts, strict=True):
            if name in slots and not torch.equal(slots[name].parameter, each.original(value)):
                slots[name].put(each.original(value))
                changed = True
        if changed:
            self._state.put(self._original)
        return changed

    # Losses

    def _steps(self, network: nn.Module, epochs: Iterable[int], optimizer: torch.optim.Optimizer) -> Iterator[int]:
        """The default training: one optimizer step a batch; the number of steps done after each."""
        batches, trained = self._data(), training.trainable(network)

        def closure(x: Any, y: Any) -> torch.Tensor:
            loss = self._loss_of(network, x, y)
            others = self._others(loss, trained)
            self._say_left([tuple(each.shape) for each in others if isinstance(each, nn.Parameter)])
            gradients.backward(loss, trained, others)
            return loss.detach()

        return training.steps(optimizer, chain.from_iterable(map(batches.epoch, epochs)), closure)

    def _loss_of(self, network: nn.Module, x: Any, y: Any, temperature: float = 1.0) -> torch.Tensor:
        """The mean loss of a batch, one element, which depends on the network alone."""
        if self._loss is None:
            raise PrecodeValueError("a loss is needed: pass loss=")
        x, y = owned(x, y)
        output = called(network, x)
        if temperature != 1:
            output = one_tensor(output) / temperature
        loss = self._loss(output, y, network) if self._loss_takes_module else self._loss(output, y)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            given = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise PrecodeShapeError(f"loss returned {given}: expected a tensor of one element, the mean over the batch")
        if not loss.is_floating_point():
            raise PrecodeTypeError(f"loss returned a tensor of {loss.dtype}: expected a real number, such as its .real")
        return loss.reshape(())

    def _others(self, loss: torch.Tensor, parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
        """The tensors beside parameters that a loss has gradients in, none of which is of the user's module.

        Raises:
            PrecodeValueError: one is.
        """
        own = {id(parameter) for parameter in parameters}
        others = [leaf for leaf in gradients.leaves(loss) if id(leaf) not in own]
        for leaf in others:
            if name := self._originals.get(id(leaf)):
                raise PrecodeValueError(
                    f"the loss depends on '{name}' of the very module that was passed in, while gradients are taken "
                    "on copies: let the loss take a third argument, as loss=lambda output, y, module: ..., and "
                    "use its parameters; functions that the module holds, its forward too, must use the layer they are "
                    "given"
                )
        return others

    # Checks and data

    def _check_finite(self, values: Tensors, when: str) -> None:
        for name, value in zip(self._names, values, strict=True):
            if not all_finite(value):
                raise PrecodeValueError(f"training diverged {when}: '{name}' is not finite; lower the learning rate")

    def _check_collapsed(self, values: dict[str, torch.Tensor]) -> None:
        """Refuses trained weights that are all equal, of which none is better than another, and names layers of such.

        Args:
            values: of the prunable parameters of which something is kept, by name.

        Raises:
            PrecodeValueError: those of every layer are.
        """
        several = [name for name, value in values.items() if value.numel() > 1]
        collapsed = [name for name in several if torch.equal(*values[name].aminmax())]
        if collapsed and len(collapsed) == len(several):
            raise PrecodeValueError(
                "training left all prunable weights of each layer equal, which do not tell them apart: lower the "
                "learning rate or the weight decay, or look at train="
            )
        if collapsed:
            self._say(COLLAPSED.format("', '".join(collapsed)))

    def _say(self, doubt: str) -> None:
        if doubt and doubt not in self.said:
            self.said.append(doubt)

    def _say_left(self, shapes: list[tuple[int, ...]]) -> None:
        """Says of parameters, by their shapes, that they are not trained."""
        if shapes:
            self._say(LEFT.format(", ".join(map(str, shapes[:5])) + (" and more" if len(shapes) > 5 else "")))

    def _check_single(self, batches: Batches) -> None:
        """Refuses a batch of one sample where the module cannot be trained on one."""
        network = self.copy()
        with batches.isolated(), torch.inference_mode(False), torch.no_grad():
            try:
                call(network, _first(batches.first[0] if batches.first else None))
            except PrecodeValueError as error:
                if str(error) == ONE_SAMPLE:
                    raise
            except Exception:  # what else a module makes of one sample is not asked here
                pass

    def _isolated(self) -> AbstractContextManager[None]:
        return self.randomness.isolated() if self._batches is None else self._batches.isolated()

    def _data(self) -> Batches:
        if self._batches is None:
            raise PrecodeValueError("data are needed: pass data= and loss=")
        return self._batches


def _has_hooks(parameter: nn.Parameter) -> bool:
    """Whether something is done with the gradient of a parameter."""
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _first(x: Any) -> Any:
    """The first sample of a batch."""
    return x[:1] if isinstance(x, torch.Tensor) and x.ndim else mapped(_first, x)
