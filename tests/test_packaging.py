"""What is published: the source distribution, the wheel and its tag, and what they are built with."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch

from precode import _precode

ROOT = Path(__file__).parents[1]
# Part of the stable ABI although they begin with an underscore.
STABLE = {
    "_PyObject_New",
    "_Py_Dealloc",
    "_Py_DecRef",
    "_Py_EllipsisObject",
    "_Py_FalseStruct",
    "_Py_IncRef",
    "_Py_NoneStruct",
    "_Py_NotImplementedStruct",
    "_Py_TrueStruct",
}


def private_symbols(library):
    """Symbols of Python that a library needs from outside itself and that no stable ABI promises."""
    listed = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    names = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines()}
    return {name for name in names if name.startswith("_Py")} - STABLE


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_the_extension_says_what_python_it_needs():
    library = Path(_precode.__file__)
    stable = ".abi3." in library.name
    assert not (stable and private_symbols(library))
    assert stable or library.name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_the_installed_wheel_has_the_tag_of_its_extension():
    try:
        wheel = distribution("precode").read_text("WHEEL")
    except PackageNotFoundError:
        pytest.skip("precode is not installed: the package of a source tree is in use")
    tags = [line.split()[1] for line in wheel.splitlines() if line.startswith("Tag: ")]
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    promised = "abi3" if ".abi3." in Path(_precode.__file__).name else python
    assert tags
    assert all(tag.split("-")[1] == promised for tag in tags)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run([sys.executable, "-m", "maturin", "sdist", "--out", folder], cwd=ROOT, check=True)
    (archive,) = folder.iterdir()
    return archive


def test_the_source_distribution_has_everything(sdist):
    with tarfile.open(sdist) as archive:
        (top,) = {name.split("/")[0] for name in archive.getnames()}
        inside = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    expected = {
        path.relative_to(ROOT).as_posix()
        for pattern in (
            ".cargo/config.toml",
            ".ci/run",
            "*.md",
            "*.toml",
            "*.txt",
            "*.yml",
            "Cargo.lock",
            "LICENSE-*",
            "Makefile",
            "docs/**/*.*",
            "notebooks/*.ipynb",
            "python/**/*.py*",
            "python/**/*.j*",
            "rust/**/*.rs",
            "rust/**/*.toml",
            "rust/**/*.py",
            "tests/**/*.py",
        )
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(expected) > 150
    assert expected <= inside
    assert not any(name.endswith((".so", ".pyc")) for name in inside)


def test_the_source_distribution_builds(sdist, tmp_path):
    """Source distribution, wheel, import; with what `target/` has compiled of the crates it depends on."""
    clean = {key: value for key, value in os.environ.items() if key not in ("LIBTORCH_USE_PYTORCH", "PYTHONPATH")}
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "-w", tmp_path, sdist], env=clean | {"CARGO_TARGET_DIR": target}, cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.split("-")[2:4] == [python, python]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE-MIT") for name in names)
    assert not any("libtorch" in name for name in names)
    script = "import precode, sys; print(precode.__file__); precode.Dnf.random(variables=8, clauses=2, width=2)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean | {"PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "installed/precode/__init__.py")


@pytest.fixture
def backend():
    spec = importlib.util.spec_from_file_location("backend", ROOT / "rust/python/backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_build_names_the_place_and_version_of_its_torch(backend, monkeypatch):
    place = f"{Path(torch.__file__).parent} {distribution('torch').version}"
    assert backend.torch_place() == place
    printed = subprocess.run(
        [sys.executable, ROOT / "rust/python/backend.py"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == place
    built = []

    def build(*arguments):
        built.append((os.environ["LIBTORCH_USE_PYTORCH"], os.environ["PATH"].split(os.pathsep)[0], arguments))
        return "precode.whl"

    monkeypatch.setenv("LIBTORCH_USE_PYTORCH", "/of/an/earlier/build")
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.setattr(backend.maturin, "build_wheel", build)
    monkeypatch.setattr(backend.maturin, "build_editable", build)
    assert backend.build_wheel("there", None, "metadata") == "precode.whl"
    assert backend.build_editable("there") == "precode.whl"
    here = str(Path(sys.executable).parent)
    assert built == [(place, here, ("there", None, "metadata")), (place, here, ("there", None, None))]


def test_a_build_without_torch_is_refused_in_a_sentence(backend, monkeypatch):
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"has none: install the version that pyproject\.toml names"):
        backend.torch_place()


def test_torch_is_pinned_in_the_same_words_everywhere():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pins = {line for line in text.replace('"', " ").replace(",", " ").split() if line.startswith("torch==")}
    assert pins == {"torch==2.13.0"}
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
