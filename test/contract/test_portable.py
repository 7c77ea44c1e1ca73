"""A folder that is moved, with an interpreter in ./python: install.sh makes it, run.sh starts it as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from executables import executable

from devtools.package.folder import copy_python, link_file

ROOT = Path(__file__).parent.parent.parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# Stands in for an interpreter, and says how it was started.
INTERPRETER = """#!/usr/bin/env bash
printf '%s\\n' "$0 $*" "path=$PYTHONPATH" "libraries=$LD_LIBRARY_PATH"
printf '%s\\n' "home=${PYTHONHOME-none}" "users=$PYTHONNOUSERSITE"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """run.sh and an environment without an interpreter. Its name has a space."""
    folder = tmp_path / "a folder"
    (folder / "venv/lib/python3.12/site-packages").mkdir(parents=True)
    (folder / "venv/bin").mkdir()
    (folder / "backend").mkdir()
    (folder / "backend/__main__.py").touch()
    shutil.copy(ROOT / "run.sh", folder)
    return folder


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LD_LIBRARY_PATH")}
    command = ["bash", str(folder / "run.sh"), "--addr", "127.0.0.1:1"]
    return subprocess.run(command, env=inherited | environment, cwd="/", capture_output=True, text=True, check=False)


def said(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    first, *rest = done.stdout.splitlines()
    return {"command": first, **dict(line.split("=", 1) for line in rest)}


def test_an_interpreter_beside_is_started_with_the_packages_of_the_venv(folder: Path) -> None:
    executable(folder / "python/bin/python3.12", INTERPRETER)
    (folder / "venv/bin/python").symlink_to("/build/host/python3.12")  # it has stayed where the venv was made
    started = said(run(folder, PYTHONPATH="/mine", PYTHONHOME="/build/host"))
    assert started["command"] == f"{folder}/python/bin/python3.12 -m backend --addr 127.0.0.1:1"
    assert started["path"] == f"{folder}:{folder}/venv/lib/python3.12/site-packages"
    assert (started["home"], started["users"], started["libraries"]) == ("none", "1", "")


def test_libraries_beside_come_before_the_machines(folder: Path) -> None:
    executable(folder / "python/bin/python3.12", INTERPRETER)
    (folder / "python/lib").mkdir()
    (folder / "python/lib/libpython3.12.so.1.0").touch()
    (folder / "lib").mkdir()
    started = said(run(folder, LD_LIBRARY_PATH="/usr/local/cuda/lib64"))
    assert started["libraries"] == f"{folder}/lib:{folder}/python/lib:/usr/local/cuda/lib64"


def test_without_an_interpreter_beside_the_venv_has_its_own(folder: Path) -> None:
    executable(folder / "venv/bin/python", INTERPRETER)
    started = said(run(folder))
    assert started["command"].startswith(f"{folder}/venv/bin/python -m backend")
    assert started["path"] == str(folder)


def test_an_interpreter_that_does_not_fit_or_is_gone_is_named_in_the_last_line(folder: Path) -> None:
    assert run(folder).stderr.splitlines()[-1] == f"the backend is not installed: run {folder}/install.sh"
    (folder / "venv/bin/python").symlink_to("/build/host/python3.12")
    gone = run(folder)
    assert gone.returncode == 1
    assert f"put a python3.12 into {folder}/python" in gone.stderr.splitlines()[-1]
    executable(folder / "python/bin/python3.13", INTERPRETER)
    other = run(folder)
    assert other.returncode == 1
    assert other.stderr.splitlines()[-1].endswith("does not fit: ./venv was installed for python3.12")


def test_a_venv_of_a_portable_interpreter_works_where_it_is_moved(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    shutil.copy(ROOT / "install.sh", here)
    copy_python(Path(sys.base_prefix), here / "python", link_file)
    (here / "python/lib").mkdir(exist_ok=True)
    command = 'source ./install.sh; "$portable" -m venv --without-pip venv; make_relocatable; is_venv_usable cpu'
    made = subprocess.run(["bash", "-c", command], cwd=here, capture_output=True, text=True)
    assert made.returncode == 1  # it has no stamp yet
    assert not made.stderr
    (here / "venv/.kind").write_text("cpu\n")
    assert subprocess.run(["bash", "-c", "source ./install.sh; is_venv_usable cpu"], cwd=here).returncode == 0
    (here / "venv/lib" / PYTHON / "site-packages/installed.py").write_text(
        "import sys; print(sys.prefix, sys.executable)"
    )
    here.rename(there)
    for path in (there, *there.rglob("*")):
        if path.is_dir():
            path.chmod(0o555)
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import installed'], check=True)"
    libraries = {"LD_LIBRARY_PATH": str(there / "python/lib")}
    child = subprocess.run(
        [there / "venv/bin/python", "-c", program], env=os.environ | libraries, capture_output=True, text=True
    )
    assert child.stdout.split() == [str(there / "venv"), str(there / "venv/bin/python")], child.stderr
    assert str(here) not in (there / "venv/pyvenv.cfg").read_text()
    for path in (there, *there.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def test_a_portable_interpreter_is_fetched_by_the_gateways_variables(tmp_path: Path) -> None:
    executable(tmp_path / "prefix/python/bin/python3", INTERPRETER)
    with tarfile.open(tmp_path / "archive", "w:gz") as archive:
        archive.add(tmp_path / "prefix/python", "python")
    executable(
        tmp_path / "bin/curl",
        f'#!/usr/bin/env bash\necho "$*" >>{tmp_path}/asked\ncp {tmp_path}/archive "${{@: -2:1}}"\n',
    )
    executable(tmp_path / "bin/uname", "#!/usr/bin/env bash\n[[ $1 == -m ]] && echo aarch64 || echo Linux\n")
    shutil.copy(ROOT / "install.sh", tmp_path)

    def fetch(**environment: str) -> subprocess.CompletedProcess[str]:
        path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        command = ["bash", "-c", "source ./install.sh; fetch_python"]
        return subprocess.run(
            command, cwd=tmp_path, env=os.environ | path | environment, capture_output=True, text=True
        )

    done = fetch(PYTHON_VERSION="3.13", PYTHON_PATCH="9", PY_STANDALONE_TAG="20251205")
    assert done.returncode == 0, done.stderr
    assert (
        "/20251205/cpython-3.13.9+20251205-aarch64-unknown-linux-gnu-install_only.tar.gz"
        in (tmp_path / "asked").read_text()
    )
    assert os.access(tmp_path / "python/bin/python3", os.X_OK)
    wrong = fetch(PORTABLE_PY_SHA256="0" * 64)
    assert wrong.returncode == 1
    assert "checksum" in wrong.stderr


def test_what_a_gateway_sets_for_other_programs_does_not_reach_the_backend(folder: Path) -> None:
    executable(folder / "venv/bin/python", "#!/usr/bin/env bash\nenv")
    hostile = dict.fromkeys(
        ("PYTHONPATH", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONSAFEPATH",
         "PYTHONPLATLIBDIR", "PYTHONINSPECT", "PYTHON_GIL", "PYTHONUTF8", "GRPC_TRACE"), "hostile",
    )  # fmt: skip
    kept = {"PYTHONPYCACHEPREFIX": "/var/cache/x", "PYTHON_GRPC_MAX_WORKERS": "3", "LC_ALL": "de_DE.ISO-8859-1"}
    variables = dict(line.split("=", 1) for line in run(folder, **hostile, **kept).stdout.splitlines() if "=" in line)
    assert "hostile" not in variables.values()
    assert (variables["PYTHONUTF8"], variables["PYTHONPATH"]) == ("1", str(folder))
    assert kept.items() <= variables.items()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize("barred", ["venv", "venv/lib/python3.12/site-packages/grpc", "backend", "target"])
def test_an_installation_that_another_user_cannot_read_is_not_called_missing(tmp_path: Path, barred: str) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # pytest's own folders are closed to others
        there = Path(name)
        there.chmod(0o755)
        folder = there / "installed"
        (folder / "venv/lib/python3.12/site-packages/grpc").mkdir(parents=True)
        (folder / "backend").mkdir()
        (folder / "backend/__main__.py").touch()
        executable(there / "target/python3.12", "#!/usr/bin/env bash\necho started")
        (folder / "venv/bin").mkdir()
        (folder / "venv/bin/python").symlink_to(there / "target/python3.12")
        shutil.copy(ROOT / "run.sh", folder)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", str(folder / "run.sh")]
        assert subprocess.run(command, capture_output=True, text=True, cwd="/").stdout == "started\n"
        path = there / barred if barred == "target" else folder / barred
        path.chmod(0o700)
        ended = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert ended.returncode == 1
        last = ended.stderr.splitlines()[-1]
        assert last.startswith(f"{path} cannot be read or run by the user ")
        assert "not installed" not in last
