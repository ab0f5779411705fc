"""Masks on modules that several processes train together."""

import subprocess
import sys

RANK = """
import copy, sys, warnings, torch
from torch import nn
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
import precode as pc

warnings.simplefilter("ignore")
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
x, y = torch.randn(32, 6), torch.randint(3, (32,))
ticket = pc.find_ticket(module, "magnitude-init", 0.4)
loss = nn.functional.cross_entropy

def trained(network, x, y, wrapped=None):
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        loss((wrapped or network)(x), y).backward()
        optimizer.step()
    return pc.plain_state_dict(network)

expected = trained(ticket.apply_(copy.deepcopy(module)), x, y)
half = slice(16 * rank, 16 * rank + 16)
for when in ("before", "after", "pruner"):
    network = copy.deepcopy(module)
    if when == "after":
        ticket.apply_(network)
    wrapped = nn.parallel.DistributedDataParallel(network)
    if when == "before":
        ticket.apply_(wrapped)
    if when == "pruner":
        with pc.Pruner(wrapped, pc.Schedule("one-shot", density=0.4)):
            found = trained(network, x[half], y[half], wrapped)
    else:
        found = trained(network, x[half], y[half], wrapped)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)

network = ticket.apply_(copy.deepcopy(module))
fully_shard(network)
optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
for _ in range(4):
    optimizer.zero_grad()
    loss(network(x[half]), y[half]).backward()
    optimizer.step()
state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True))
for name in expected if rank == 0 else ():
    found = state.get(name, state.get(name.replace("weight", "parametrizations.weight.original")))
    torch.testing.assert_close(found, expected[name])
for call in (pc.plain_state_dict, ticket.rewind_, lambda network: pc.find_ticket(network, "random", 0.5)):
    try:
        call(network)
    except pc.PrecodeTypeError as error:
        assert "is a distributed tensor: prune the module before fully_shard" in str(error)
    else:
        raise AssertionError("a sharded module was taken")
dist.destroy_process_group()
"""


def test_distributed_training_of_a_module_that_is_pruned_before_or_after_it_is_wrapped(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for rank in ranks:
        _, said = rank.communicate(timeout=120)
        assert rank.returncode == 0, said.decode()
