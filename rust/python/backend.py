"""The build backend: maturin, told which torch to compile against.

`torch-sys` takes libtorch from the torch of a Python, and is compiled again only if the environment variable
``LIBTORCH_USE_PYTORCH`` has changed. Here its value is the place and the version of that torch. So a build in an
environment of its own, one in another virtual environment, and one after torch was replaced all compile against the
torch that they will run with, also from a source distribution, whatever an earlier build left in `target/`.

As a program it prints the value: ``LIBTORCH_USE_PYTORCH=$(python rust/python/backend.py) cargo test`` shares compiled
crates with ``pip install --no-build-isolation .``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def torch_place() -> str:
    """Folder and version of the torch that this Python imports.

    Raises:
        SystemExit: there is none.
    """
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        raise SystemExit(
            f"precode is compiled against torch, but {sys.executable} has none: install the version that "
            "pyproject.toml names, or leave out --no-build-isolation"
        )
    return f"{Path(torch.origin).parent} {version('torch')}"


def _prepare() -> None:
    """Sets the environment of the build; `torch-sys` asks the first ``python`` or ``python3`` on the path."""
    os.environ["LIBTORCH_USE_PYTORCH"] = torch_place()
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Builds the wheel (PEP 517)."""
    _prepare()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Builds an editable wheel (PEP 660)."""
    _prepare()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


if __name__ == "__main__":
    print(torch_place())
else:
    import maturin
    from maturin import (
        build_sdist,
        get_requires_for_build_editable,
        get_requires_for_build_sdist,
        get_requires_for_build_wheel,
        prepare_metadata_for_build_editable,
        prepare_metadata_for_build_wheel,
    )

    __all__ = [
        "build_editable",
        "build_sdist",
        "build_wheel",
        "get_requires_for_build_editable",
        "get_requires_for_build_sdist",
        "get_requires_for_build_wheel",
        "prepare_metadata_for_build_editable",
        "prepare_metadata_for_build_wheel",
    ]
