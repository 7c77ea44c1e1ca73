"""The requirement files: for install.sh, and for the gateway's own installer, which has an order of its own."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from devtools.package.distributions import requirements_in, with_dependencies

ROOT = Path(__file__).parent.parent.parent
# What the gateway's installer reads after requirements.txt, by its names for builds; requirements-after.txt comes last.
PROFILES = {
    "cpu": "cpu", "cublas12": "cuda12", "cublas13": "cuda13", "hipblas": "rocm", "intel": "xpu", "l4t12": "l4t12",
    "l4t13": "l4t13", "mps": "mps",
}  # fmt: skip


def lines_of(name: str) -> list[str]:
    """The lines of a requirements file and of those that it includes, without comments."""
    lines = []
    for line in (ROOT / name).read_text().splitlines():
        text = line.partition("#")[0].strip()
        lines += lines_of(text.removeprefix("-r ")) if text.startswith("-r ") else [text] if text else []
    return lines


def ask(command: str) -> str:
    done = subprocess.run(["bash", "-c", f"source ./install.sh; {command}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("profile", "kind"), PROFILES.items())
def test_the_gateways_installer_takes_torch_from_where_install_sh_takes_it(profile: str, kind: str) -> None:
    lines = lines_of(f"requirements-{profile}.txt")
    indexes = [line.split()[1] for line in lines if line.startswith("--extra-index-url")]
    assert indexes == [index for index in [ask(f"torch_index {kind}")] if index]
    pins = [line for line in lines if not line.startswith("-")]
    assert pins == [ask(f"torch_pin {kind}")]
    assert ("torch==2.13.0" in pins) != (profile == "l4t12")


def test_no_file_but_those_of_torch_names_it() -> None:
    for name in ("requirements.txt", "requirements-after.txt", "requirements-dev.txt", "requirements-stubs.txt"):
        assert not re.search(r"^torch\b", (ROOT / name).read_text(), re.MULTILINE), name


def test_nothing_that_is_installed_before_torch_asks_for_it() -> None:
    """Else the gateway's installer would take PyPI's build first, gigabytes for CUDA, for every kind of processor."""
    roots = requirements_in(ROOT / "requirements.txt")
    assert len(roots) > 10
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    assert "torch" not in with_dependencies(roots, installed)


def test_what_is_pinned_twice_has_one_version() -> None:
    pins: dict[str, set[str]] = {}
    for path in ROOT.glob("requirements*.txt"):
        for requirement in requirements_in(path):
            pins.setdefault(requirement.name, set()).add(str(requirement.specifier))
    pins.pop("torch")
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}


def test_the_generator_of_the_stubs_has_the_version_of_the_library() -> None:
    (tools,) = requirements_in(ROOT / "requirements-stubs.txt")
    grpcio = {str(r.specifier) for r in requirements_in(ROOT / "requirements.txt") if r.name.startswith("grpcio")}
    assert grpcio == {str(tools.specifier)}
