"""Large tensors some entries at a time."""

import pytest
import torch

from precode._internal.parts import PART, all_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_one_entry_that_is_not_finite_is_found_in_any_part(kind, wrong):
    tensor = torch.randn(2, PART).to(kind).mT
    assert all_finite(tensor)
    for place in [(0, 0), (PART - 1, 1), (PART // 2, 0)]:
        before = tensor[place].clone()
        tensor[place] = complex(1, wrong) if kind.is_complex else wrong
        assert not all_finite(tensor)
        tensor[place] = before
    assert all_finite(tensor)


def test_the_largest_floats_are_finite():
    most = torch.finfo(torch.float32).max
    assert all_finite(torch.tensor([most, -most, most]))


def test_kinds_that_torch_does_not_order():
    values = torch.tensor([1.0, -2.0])
    for kind in (torch.float8_e5m2, torch.float8_e4m3fn):
        assert all_finite(values.to(kind))
        assert not all_finite(torch.tensor([1.0, NAN]).to(kind))
    assert all_finite(torch.tensor([1 + 2j]).conj())
    assert all_finite(torch.tensor([True, False]))
    assert all_finite(torch.empty(3, 0))
    assert all_finite(torch.tensor(1.0))
    assert not all_finite(torch.tensor(NAN))
