"""install.sh: which build of torch it takes, and when it installs anew. Python, pip and nvidia-smi are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from executables import executable

ROOT = Path(__file__).parent.parent.parent
CPU, CU126, CU130, ROCM, XPU = (
    f"https://download.pytorch.org/whl/{name}" for name in ("cpu", "cu126", "cu130", "rocm7.2", "xpu")
)
JETSON = "https://pypi.jetson-ai-lab.io/jp6/cu129/"

SMI = """#!/usr/bin/env bash
[[ "$*" != *compute_cap* || -z "$OLD_SMI" ]] || { echo 'Field "compute_cap" is not a valid field to query.'; exit 2; }
printf '%s\\n' "$CARDS"
exit "${SMI_STATUS:-0}"
"""
# Makes a venv whose python is this script again, records what pip is asked for, and computes fingerprints as Python.
PYTHON = f"""#!/usr/bin/env bash
case "$*" in
  "-m venv"*) mkdir -p "${{@: -1}}/bin" && cp "$0" "${{@: -1}}/bin/python" && rm -f "${{@: -1}}"/.[a-z]* ;;
  *"-m pip"*)
    echo "$*" >>"$PIP_LOG"
    [[ "$*" != *"index versions"* ]] || echo "Available versions: $OFFERED"
    [[ -z "$OUT_OF_REACH" || "$*" != *"$OUT_OF_REACH"* ]]
    ;;
  *"-m grpc_tools"*) touch backend/wire/backend_pb2.py backend/wire/backend_pb2_grpc.py ;;
  *"import torch"*) echo "$TORCH_BUILD" ;;
  *backend.wire*) ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What install.sh reads, without a venv."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for file in [ROOT / "install.sh", *ROOT.glob("requirements*.txt")]:
        shutil.copy(file, folder)
    shutil.copytree(ROOT / "proto", folder / "proto")
    csrc = Path("backend/engine/ops/csrc")
    shutil.copytree(ROOT / csrc, folder / csrc, ignore=shutil.ignore_patterns("*.so"))
    (folder / "backend/wire").mkdir()
    executable(tmp_path / "bin/nvidia-smi", SMI)
    executable(tmp_path / "bin/python3", PYTHON)
    executable(
        tmp_path / "bin/uname", '#!/usr/bin/env bash\n[[ "$1" == -m ]] && echo x86_64 || echo "${SYSTEM:-Linux}"\n'
    )
    return folder


@pytest.fixture
def run(checkout: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run(command, **environment)` in the checkout, with the stand-ins first on PATH."""

    def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        unset = {"BUILD_TYPE", "CUDA", "CUDA_MAJOR_VERSION", "PYTHON", "DEV", "TORCH_INDEX", "CPU_TORCH_ONLY"}
        stand_ins = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PIP_LOG": str(tmp_path / "pip")}
        defaults = {"CARDS": "", "OLD_SMI": "", "CC": "no-compiler-here", "OFFERED": "2.14.1+cpu, 2.13.0+cpu"}
        defaults |= {"OUT_OF_REACH": "", "TEGRA_RELEASE": "/no/such/file", "PORTABLE_PYTHON": ""}
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        everything = inherited | stand_ins | defaults | environment
        return subprocess.run(["bash", "-c", command], cwd=checkout, env=everything, capture_output=True, text=True)

    return run


CHOOSE = 'source ./install.sh; kind="$(kind_of_build)"; torch_index "$kind"'
GPU = {"BUILD_TYPE": "cublas"}


@pytest.mark.parametrize(
    ("environment", "index", "said"),
    [
        ({}, CPU, ""),
        ({"BUILD_TYPE": ""}, CPU, ""),
        ({"BUILD_TYPE": "hipblas"}, ROCM, ""),
        # by driver
        (GPU | {"CARDS": "580.65.06, 8.9"}, CU130, ""),
        (GPU | {"CARDS": "580, 8.9"}, CU130, ""),
        (GPU | {"CARDS": "579.99, 8.9"}, CU126, ""),
        (GPU | {"CARDS": "550.163.01, 7.5"}, CU126, ""),
        (GPU | {"CARDS": "470.57.02, 7.5"}, CU126, "older than 525"),
        # by card
        (GPU | {"CARDS": "590.10, 7.5"}, CU130, ""),
        (GPU | {"CARDS": "580.65.06, 7.0"}, CU126, ""),
        (GPU | {"CARDS": "580.65.06, 6.1"}, CU126, ""),
        (GPU | {"CARDS": "580.65.06, 12.0"}, CU130, ""),
        (GPU | {"CARDS": "580.65.06, [N/A]"}, CU130, ""),
        (GPU | {"CARDS": "570.86.10, 12.0"}, "", "needs driver 580 or later"),
        (GPU | {"CARDS": "570.86.10, 10.0"}, "", "CUDA=13"),
        # several cards
        (GPU | {"CARDS": "580.65.06, 9.0\n580.65.06, 7.0"}, CU126, ""),
        (GPU | {"CARDS": "580.65.06, 9.0\n580.65.06, 12.0"}, CU130, ""),
        (GPU | {"CARDS": "580.65.06, 12.0\n580.65.06, 7.0"}, CU130, "without those older than Turing"),
        (GPU | {"CARDS": "570.86.10, 12.0\n570.86.10, 8.6"}, CU126, "Blackwell card, which needs driver 580"),
        # nvidia-smi that is old, fails or knows of no card
        (GPU | {"CARDS": "535.54", "OLD_SMI": "1"}, CU126, ""),
        (GPU | {"CARDS": "580.65", "OLD_SMI": "1"}, CU130, ""),
        (GPU | {"CARDS": "NVIDIA-SMI has failed", "SMI_STATUS": "9"}, CU130, "names no card"),
        (GPU | {"CARDS": "No devices were found"}, CU130, "names no card"),
        # forced
        (GPU | {"CARDS": "590.10, 12.0", "CUDA": "12"}, CU126, ""),
        (GPU | {"CARDS": "570.86.10, 12.0", "CUDA": "13"}, CU130, ""),
        (GPU | {"CARDS": "590.10, 9.0", "CUDA_MAJOR_VERSION": "12"}, CU126, ""),
        (GPU | {"CARDS": "535.54, 9.0", "CUDA_MAJOR_VERSION": "13"}, CU130, ""),
        (GPU | {"CUDA": "13", "CUDA_MAJOR_VERSION": "12"}, CU130, ""),
        (GPU | {"CUDA": "11"}, "", "may be 12 or 13"),
        ({"CUDA": "12"}, CPU, "has no effect"),
        ({"CUDA_MAJOR_VERSION": "12"}, CPU, ""),  # images of other builds set it, too
        # other makers
        ({"BUILD_TYPE": "intel"}, XPU, ""),
        ({"BUILD_TYPE": "l4t", "CUDA_MAJOR_VERSION": "12"}, JETSON, ""),
        ({"BUILD_TYPE": "l4t", "CUDA_MAJOR_VERSION": "13"}, CU130, ""),
        ({"BUILD_TYPE": "l4t", "CUDA": "11"}, "", "may be 12 or 13"),
        ({"BUILD_TYPE": "l4t"}, "", "CUDA=12 (JetPack 6)"),
        ({"BUILD_TYPE": "mps"}, "", "is for Macs"),
        ({"BUILD_TYPE": "metal"}, "", "is for Macs"),
        ({"BUILD_TYPE": "vulkan"}, "", "not known"),
        ({"BUILD_TYPE": "vulkan"}, "", "hipblas for AMD"),
        ({"BUILD_TYPE": "clblas"}, "", "use cublas for NVIDIA"),
        ({"BUILD_TYPE": "sycl_f16"}, "", "intel for Intel"),
        ({"BUILD_TYPE": "cuda"}, "", "cublas, hipblas, intel, l4t, mps or metal"),
    ],
)  # fmt: skip
def test_the_index_fits_the_driver_and_the_card(run, environment: dict[str, str], index: str, said: str) -> None:
    done = run(CHOOSE, **environment)
    assert (done.returncode == 0) == bool(index), done.stderr
    assert done.stdout.strip() == index
    assert said in done.stderr if said else not done.stderr


def test_without_nvidia_smi_the_newest_build_is_taken_and_a_line_says_so(run, tmp_path: Path) -> None:
    executable(tmp_path / "bin/nvidia-smi", "#!/usr/bin/env bash\nexit 127\n")
    done = run(CHOOSE, **GPU)
    assert done.stdout.strip() == CU130
    assert "nvidia-smi names no card" in done.stderr
    assert not run(CHOOSE, **GPU, CUDA="13").stderr


@pytest.mark.parametrize(
    ("release", "index"), [("R36 (release)", JETSON), ("R38 (release)", CU130), ("R35 (release)", "")]
)
def test_a_jetson_gets_the_build_for_its_jetpack(run, tmp_path: Path, release: str, index: str) -> None:
    (tmp_path / "release").write_text(f"# {release}, REVISION: 4.3, GCID: 38968081, BOARD: generic\n")
    done = run(CHOOSE, BUILD_TYPE="l4t", TEGRA_RELEASE=str(tmp_path / "release"))
    assert done.stdout.strip() == index
    assert bool(index) or "JetPack 5" in done.stderr


@pytest.mark.parametrize("build_type", ["mps", "metal"])
def test_a_mac_takes_torch_from_where_pip_looks(run, tmp_path: Path, build_type: str) -> None:
    done = run("bash install.sh", BUILD_TYPE=build_type, SYSTEM="Darwin", TORCH_BUILD="cpu")
    assert done.returncode == 0, done.stderr
    assert pip_calls(tmp_path)[0].endswith("install --quiet torch==2.13.0")


def pip_calls(tmp_path: Path) -> list[str]:
    log = tmp_path / "pip"
    calls = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return calls


def test_a_changed_choice_installs_anew_and_an_unchanged_one_does_nothing(run, checkout: Path, tmp_path: Path) -> None:
    old, new = "550.163.01, 7.5", "580.65.06, 7.5"
    kind = checkout / "venv/.kind"

    def install(**environment: str) -> list[str]:
        done = run("bash install.sh", **environment)
        assert done.returncode == 0, done.stderr
        return pip_calls(tmp_path)

    calls = install(BUILD_TYPE="cublas", CARDS=old, TORCH_BUILD="cuda 12.6")
    assert f"{CU126} -r requirements-cuda.txt" in calls[0]
    assert kind.read_text() == "cuda12\n"
    assert install(BUILD_TYPE="cublas", CARDS=old) == []
    assert install(CARDS=new) == []  # nobody asks: the venv keeps its kind
    assert kind.read_text() == "cuda12\n"
    calls = install(BUILD_TYPE="cublas", CARDS=new, TORCH_BUILD="cuda 13.0")
    assert f"{CU130} -r requirements-cuda.txt" in calls[0]
    assert kind.read_text() == "cuda13\n"
    assert install(BUILD_TYPE="cublas", CARDS=new) == []
    assert CU126 in install(CUDA="12", TORCH_BUILD="cuda 12.6")[0]
    kind.write_text("cuda\n")  # the stamp of earlier versions, which meant CUDA 13
    assert install(BUILD_TYPE="cublas", CARDS=new) == []
    assert kind.read_text() == "cuda13\n"
    assert CPU in install(BUILD_TYPE="cpu", TORCH_BUILD="cpu")[0]
    assert "CUDA=12 has no effect" in run("bash install.sh", CUDA="12").stderr
    assert kind.read_text() == "cpu\n"


@pytest.mark.parametrize(
    ("environment", "build"),
    [
        ({"BUILD_TYPE": "cublas", "CUDA": "12"}, "cuda 13.0"),
        ({"BUILD_TYPE": "cublas", "CUDA": "13"}, "cuda 12.6"),
        ({"BUILD_TYPE": "cublas", "CUDA": "13"}, "cpu"),
        ({"BUILD_TYPE": "hipblas"}, "cuda 13.0"),
        ({"BUILD_TYPE": "intel"}, "cpu"),
        ({"BUILD_TYPE": "l4t", "CUDA": "12"}, "cuda 13.0"),
    ],
)
def test_another_build_than_the_wanted_one_is_refused(run, environment: dict[str, str], build: str) -> None:
    done = run("bash install.sh", **environment, TORCH_BUILD=build)
    assert done.returncode == 1
    assert f"built for {build}, not for " in done.stderr.splitlines()[-1]
    assert "TORCH_INDEX=" in done.stderr


def test_a_cpu_install_may_hold_another_build(run) -> None:
    """PyPI's torch for Linux is a CUDA build; engine/ops/device.py knows from the stamp that no GPU was wanted."""
    assert run("bash install.sh", BUILD_TYPE="cpu", TORCH_BUILD="cuda 13.0").returncode == 0


def test_a_cpu_install_without_the_cpu_index_says_what_comes_instead_and_goes_on(run, tmp_path: Path) -> None:
    done = run("bash install.sh", OFFERED="2.14.1, 2.13.0", TORCH_BUILD="cuda 13.0")
    assert done.returncode == 0, done.stderr
    assert "3 GB to download and 5 GB on disk" in done.stderr
    assert CPU in done.stderr
    assert "CPU_TORCH_ONLY=1" in done.stderr
    asked, installed, *_ = pip_calls(tmp_path)
    assert f"index versions torch --timeout 10 --retries 0 --index-url {CPU}" in asked
    assert installed.endswith("install --quiet torch==2.13.0")


def test_a_cpu_install_that_must_be_small_is_refused_before_anything_is_downloaded(run, tmp_path: Path) -> None:
    done = run("bash install.sh", OFFERED="2.13.0", CPU_TORCH_ONLY="1")
    assert done.returncode == 1
    assert "TORCH_INDEX=" in done.stderr.splitlines()[-1]
    assert [call for call in pip_calls(tmp_path) if " install " in call] == []
    assert run("bash install.sh", CPU_TORCH_ONLY="1").returncode == 0  # the index answers


def test_a_download_that_breaks_off_is_tried_once_more_from_the_same_index(run, tmp_path: Path) -> None:
    """The build for CUDA, fifteen times as large, is not the answer to a connection that failed once."""
    done = run("bash install.sh", OUT_OF_REACH="--retries 0 --index-url https://download.pytorch.org/whl/cpu torch")
    assert done.returncode == 0, done.stderr
    first, again = [call for call in pip_calls(tmp_path) if "install --quiet" in call and "torch==" in call][:2]
    assert first.endswith(f"--timeout 10 --retries 0 --index-url {CPU} torch==2.13.0")
    assert again.endswith(f"--quiet --index-url {CPU} torch==2.13.0")


def test_a_run_time_venv_gets_no_generator_and_the_package_without_its_dependencies(run, tmp_path: Path) -> None:
    assert run("bash install.sh").returncode == 0
    calls = pip_calls(tmp_path)
    assert [call for call in calls if "requirements-after.txt" in call and "--no-deps" in call]
    assert [call for call in calls if "requirements-stubs.txt" in call and "--target" in call]
    assert not [call for call in calls if "requirements-dev.txt" in call]
    for name in ("requirements.txt", "requirements-after.txt", "requirements-cpu.txt", "requirements-dev.txt"):
        assert "grpcio-tools" not in (ROOT / name).read_text()


def test_pip_installs_into_the_venv_whatever_its_settings_say(run, checkout: Path, tmp_path: Path) -> None:
    python = tmp_path / "bin/python3"
    executable(python, PYTHON.replace('echo "$*" >>"$PIP_LOG"', 'echo "$PIP_USER,$PIP_TARGET" >>"$PIP_LOG"'))
    assert run("bash install.sh", PIP_USER="1", PIP_TARGET="/elsewhere").returncode == 0
    assert set(pip_calls(tmp_path)) == {"0,"}


def test_settings_for_other_programs_do_not_reach_pip_or_python(run, tmp_path: Path) -> None:
    keys = ("PIP_PYTHON", "PIP_REQUIRE_HASHES", "PIP_INDEX_URL", "PYTHONHOME", "PYTHONWARNINGS", "PYTHONOPTIMIZE")
    shown = ",".join(f"${{{key}-}}" for key in keys)
    executable(tmp_path / "bin/python3", PYTHON.replace('echo "$*" >>"$PIP_LOG"', f'echo "{shown}" >>"$PIP_LOG"'))
    hostile = dict.fromkeys(keys, "1") | {"PIP_INDEX_URL": "https://mirror/simple", "PYTHONHOME": "/elsewhere"}
    done = run("bash install.sh", **hostile)
    assert done.returncode == 0, done.stderr
    assert set(pip_calls(tmp_path)) == {",0,https://mirror/simple,,,"}


def test_a_venv_that_works_is_never_cleared(run, checkout: Path, tmp_path: Path) -> None:
    venv = checkout / "venv"
    assert run("bash install.sh").returncode == 0
    (venv / "mark").touch()
    (venv / ".kind").unlink()  # made by hand, or by another tool
    done = run("bash install.sh", PYTHONHOME="/elsewhere", PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert "it works and is kept" in done.stderr
    assert (venv / "mark").exists()
    failed = run("bash install.sh", BUILD_TYPE="cublas", CARDS="580, 8.9", OUT_OF_REACH="torch==2.13.0")
    assert failed.returncode != 0
    assert "./venv is what it was before" in failed.stderr.splitlines()[-1]
    assert (venv / "mark").exists()
    assert (venv / ".kind").read_text() == "cpu\n"
    (venv / ".wire").unlink()
    venv.rename(checkout / "venv.before")  # an install was killed in the middle
    (venv / "bin").mkdir(parents=True)
    assert run("bash install.sh").returncode == 0
    assert (venv / "mark").exists()
    assert not (checkout / "venv.before").exists()
