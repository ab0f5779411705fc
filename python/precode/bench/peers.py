"""Other ways to train many small networks: each the best we know to write with its library."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from precode.bench.jax_peer import Jax
from precode.bench.torch_peers import TorchCompile, TorchLoop, TorchVmap
from precode.bench.trainers import SIZES, Peer


def _both(peer: Peer) -> tuple[Peer, Peer]:
    """The peer that gathers each batch, and the same one that shuffles all samples first."""
    return peer, replace(peer, name=f"{peer.name}, shuffled", trainer=partial(peer.trainer, shuffled=True), copies=2)


PEERS = (
    *_both(Peer("torch loop", TorchLoop, sizes=(1,), item_bytes=4)),
    *_both(Peer("torch.func.vmap", TorchVmap)),
    # One network at a time is far from its best, and compiling takes long.
    *_both(Peer("torch.compile(vmap)", TorchCompile, sizes=SIZES[1:])),
    *_both(Peer("jax jit(vmap(scan))", Jax, package="jax", level=lambda: None)),
)
"""The peers of the benchmark, in both variants."""
