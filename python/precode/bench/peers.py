"""Other ways to train many small networks: each the best we know to write with its library."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from precode.bench.jax_peer import Jax
from precode.bench.torch_peers import TorchCompile, TorchLoop, TorchVmap
from precode.bench.trainers import SIZES, Peer


def _both(peer: Peer, copy_bytes: int) -> tuple[Peer, Peer]:
    """The peer that gathers each batch, and the same one that shuffles all samples first."""
    trainer = partial(peer.trainer, shuffled=True)
    return peer, replace(peer, name=f"{peer.name}, shuffled", trainer=trainer, copy_bytes=copy_bytes)


PEERS = (
    *_both(Peer("torch loop", TorchLoop, sizes=(1,), item_bytes=4), 4),
    *_both(Peer("torch.func.vmap", TorchVmap), 4),
    # One network at a time is far from its best, and compiling takes long.
    *_both(Peer("torch.compile(vmap)", TorchCompile, sizes=SIZES[1:]), 4),
    *_both(Peer("jax jit(vmap(scan))", Jax, package="jax", level=lambda: None), 1),
)
"""The peers of the benchmark, in both variants."""
