"""Imports the compiled extension, or says in one sentence why it cannot be."""

import torch

__all__ = ["TORCH_VERSION", "check_torch"]


def check_torch(compiled: str, installed: str) -> None:
    """Refuses another torch than the one the extension was compiled against.

    Args:
        compiled: version the extension was compiled against, such as ``2.13.0+cu130``.
        installed: ``torch.__version__``.

    Raises:
        ImportError: the release numbers differ (local parts such as ``+cpu`` may differ).
    """
    if compiled.split("+")[0] != installed.split("+")[0]:
        raise ImportError(
            f"precode was compiled against torch {compiled} but torch {installed} is installed: "
            f"run `pip install torch=={compiled.split('+')[0]}`, or rebuild precode against the installed "
            "torch with `pip install --no-build-isolation .`"
        )


try:
    from precode._precode import TORCH_VERSION
except ImportError as error:
    raise ImportError(
        f"the compiled part of precode cannot be loaded with torch {torch.__version__} ({error}): "
        "it was compiled against another torch or Python; reinstall precode in this environment"
    ) from error

check_torch(TORCH_VERSION, str(torch.__version__))
