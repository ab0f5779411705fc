"""What happens when the package is imported."""

import subprocess
import sys

import pytest
import torch

import precode
from precode._internal.extension import check_torch


def test_the_extension_was_compiled_against_the_installed_torch():
    assert precode.TORCH_VERSION.split("+")[0] == torch.__version__.split("+")[0]


def test_another_torch_is_refused_with_the_remedy():
    with pytest.raises(ImportError, match=r"compiled against torch 2.13.0\+cu130 but torch 2.12.1 is installed"):
        check_torch("2.13.0+cu130", "2.12.1")
    with pytest.raises(ImportError, match=r"pip install torch==2\.13\.0"):
        check_torch("2.13.0+cu130", "2.14.0")
    check_torch("2.13.0+cu130", "2.13.0+cpu")


def test_import_is_quiet_and_leaves_matplotlib_alone():
    script = "import sys, precode; assert 'matplotlib' not in sys.modules and 'scipy' not in sys.modules"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_everything_public_is_documented():
    for name in precode.__all__:
        item = getattr(precode, name)
        assert isinstance(item, str) or item.__doc__, name
