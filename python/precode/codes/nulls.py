"""What codes and distances look like by chance: no claim is reported without these.

The fourth null, clauses that are not in the formula, is `Dnf.false_clauses`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from precode import _precode
from precode._internal.check import COUNT, KEY, booleans, integer
from precode._internal.errors import PrecodeShapeError, PrecodeTypeError
from precode.codes.decoding import Codes
from precode.codes.readouts import Readout, as_floats

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _stream(seed: int, index: int) -> tuple[int, int]:
    return integer(seed, "seed", 0, KEY), integer(index, "index", 0, KEY)


def hamming_probabilities(template: str, width: int | None = None) -> NDArray[np.float64]:
    """Probability of each Hamming distance 0..k from a template under random signs.

    For an all-positive template this is Binomial(k, 1/2).

    Args:
        template: such as ``"4P"`` or ``"3N1P"``.
        width: literals of a clause, by default those of the template's name.

    Raises:
        PrecodeValueError: not a template's name.

    Example:
        >>> hamming_probabilities("4P")
        array([0.0625, 0.25  , 0.375 , 0.25  , 0.0625])
    """
    if not isinstance(template, str):
        raise PrecodeTypeError(f"template must be a name such as '4P', not {type(template).__name__}")
    if width is None:
        width = sum(map(int, re.findall(r"(\d+)[PN]", template)))
    return np.array(_precode.hamming_probabilities(template, integer(width, "width", 0, COUNT)))


def random_network(codes: Codes, *, seed: int = 0, index: int = 0) -> Codes:
    """Codes of a network with random signs but the same polarities and fraction of positive entries.

    The random baseline of arXiv 2504.08842, section 4.1.

    Args:
        codes: of a trained network or a stack.
        seed: key of the random numbers.
        index: number of the draw; network r of a stack uses ``index + r``, so draws of a stack of R are independent
            if their indices are R apart.

    Example:
        >>> import torch
        >>> from precode import decode
        >>> codes = decode(torch.ones(64, 8), torch.ones(64), [[0, 1, 2, 3]])
        >>> random_network(codes).code_size()  # every entry of ones is positive
        array([64])
    """
    source = codes._readout
    signs = _precode.random_signs(source.networks, codes.floor, *_stream(seed, index))
    return Codes(Readout(signs, source.output.astype(np.float32), source.sets, source.stacked))


def permute_rows(
    channels: NDArray[np.bool_], output_weights: NDArray[Any], *, seed: int = 0, index: int = 0
) -> NDArray[np.bool_]:
    """Channels with the codes re-assigned to random rows of the same polarity: the row-permuted null.

    Args:
        channels: (C, j) or (R, C, j), as from `Codes.channels`.
        output_weights: (j,) or (R, j), whose signs are the polarities.
        seed: key of the random numbers.
        index: number of the draw; network r of a stack uses ``index + r``.

    Raises:
        PrecodeShapeError: the shapes do not fit.

    Example:
        >>> channels = np.array([[True, False, False, False]])
        >>> bool(permute_rows(channels, np.array([1.0, 1.0, -1.0, -1.0]))[0, :2].any())
        True
    """
    channels = booleans(channels, "channels", "channels")
    if channels.ndim not in (2, 3):
        raise PrecodeShapeError(f"channels of shape {channels.shape}: expected (C, j) or (R, C, j)")
    stacked = channels.ndim == 3
    bits = np.ascontiguousarray(channels if stacked else channels[None])
    output = np.ascontiguousarray(np.atleast_2d(as_floats(output_weights, "output_weights")), dtype=np.float64)
    permuted = _precode.permute_rows(bits, output, *_stream(seed, index))
    return permuted if stacked else permuted[0]
