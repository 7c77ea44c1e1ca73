"""`make package`: what is in the folder, what is not, and that it transcribes where it was moved."""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from backend.wire import backend_pb2 as pb
from devtools.package.distributions import NotInstalled, files_of, required, requirements_in
from devtools.package.folder import copy_python, link_file, make_folder
from devtools.package.licences import write_licences
from devtools.package.sbom import bill_of_materials
from devtools.server_process import RUN_SH, ServerProcess

ROOT = Path(__file__).parents[3]
SITE = Path(sysconfig.get_paths()["purelib"])
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def names(of: list[str]) -> set[str]:
    return {name.lower().replace("_", "-") for name in of}


def test_the_tools_for_tests_are_not_needed_at_run_time() -> None:
    needed = names([found.metadata["Name"] for found in required(ROOT, SITE)])
    assert {"torch", "grpcio", "qwen-asr", "soundfile"} <= needed
    assert not needed & {"pytest", "ruff", "mypy", "grpcio-tools", "gradio", "flask", "matplotlib", "pip"}
    for requirement in requirements_in(ROOT / "requirements.txt"):
        assert names([requirement.name]) <= needed


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    for name, text in (("requirements.txt", "no-such-package[speed]==1.0  # why\n"), ("requirements-after.txt", "")):
        (tmp_path / name).write_text(text)
    with pytest.raises(NotInstalled, match=r"^no-such-package is not installed; run `make install`$"):
        required(tmp_path, SITE)


def test_files_are_those_that_something_imports() -> None:
    (torch,) = (found for found in required(ROOT, SITE) if found.metadata["Name"] == "torch")
    files = {str(path) for path in files_of(torch)}
    assert "torch/__init__.py" in files
    assert "torch/lib/libtorch_cpu.so" in files or sys.platform == "darwin"
    assert not [
        path for path in files if path.startswith(("..", "torch/test/", "torch/include/")) or "__pycache__" in path
    ]
    assert not [path for path in files if path.endswith(("/INSTALLER", "/direct_url.json"))]


def test_the_list_of_parts_names_each_with_its_version_and_licence() -> None:
    needed = required(ROOT, SITE)
    bill = bill_of_materials("1.2.3", needed, "3.12.12")
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["version"] == "1.2.3"
    parts = {part["name"]: part for part in bill["components"]}
    assert set(parts) == {found.metadata["Name"] for found in needed} | {"cpython"}
    assert parts["grpcio"]["purl"].startswith("pkg:pypi/grpcio@1.")
    assert "+" not in parts["torch"]["purl"]
    libraries = {part["name"].partition("-")[0]: part["licenses"] for part in parts["av"]["components"]}
    assert libraries["libx264"] == [{"license": {"name": "GPL-2.0-or-later"}}]
    references = {part["bom-ref"] for part in bill["components"]} | {"qwen-asr"}
    for dependency in bill["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= references
    assert bill == bill_of_materials("1.2.3", needed, "3.12.12")
    assert bill["serialNumber"] != bill_of_materials("1.2.4", needed, "3.12.12")["serialNumber"]


def test_every_part_has_a_licence_or_a_statement_of_it(tmp_path: Path) -> None:
    needed = [found for found in required(ROOT, SITE) if found.metadata["Name"] in ("tokenizers", "soundfile")]
    others = [("ours", "MIT", ROOT / "LICENSE"), ("python-3.12", "PSF-2.0", tmp_path / "there is none")]
    write_licences(tmp_path / "licenses", SITE, needed, others)
    files = {path.relative_to(tmp_path / "licenses").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    folders = {path.partition("/")[0].rpartition("-")[0] for path in files if "/" in path}
    assert folders == {"", "python", "tokenizers", "soundfile"}
    assert "ours/LICENSE" in files
    assert "PSF-2.0" in (tmp_path / "licenses/python-3.12/STATEMENT.txt").read_text()
    (tokenizers,) = (path for path in files if path.startswith("tokenizers"))  # its wheel has no file
    assert "Apache" in (tmp_path / "licenses" / tokenizers).read_text()
    table = (tmp_path / "licenses/README.txt").read_text().splitlines()
    assert any(line.startswith("  libsndfile") and line.endswith("LGPL-2.1-or-later") for line in table)


@pytest.mark.slow
def test_a_package_transcribes_where_it_was_moved_by_the_interpreter_that_lies_beside(tmp_path: Path) -> None:
    made, moved = tmp_path / "made/qwen-asr", tmp_path / "moved to/another place"
    sizes = make_folder(ROOT, made, link=True, bytecode=False)
    assert sizes["torch"] > 100e6
    moved.parent.mkdir()
    made.rename(moved)
    (moved / "venv/bin" / PYTHON).unlink()  # the interpreter of the machine where it was made
    if not (moved / "python").is_dir():
        copy_python(Path(sys.base_prefix), moved / "python", link_file)
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()}

    said = json.loads((moved / "test/audio/demo.json").read_text())
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    with ServerProcess((*RUN_SH, str(moved / "run.sh")), folder=Path("/"), environment=environment) as server:
        model, aligner = moved / "test/models/asr", moved / "test/models/aligner"
        server.load(pb.ModelOptions(Model=str(model), Options=[f"forced_aligner:{aligner}"]))
        request = pb.TranscriptRequest(dst=str(moved / "test/audio/demo.wav"), timestamp_granularities=["word"])
        heard = server.stub.AudioTranscription(request)
        assert Path(f"/proc/{server.pid}/exe").readlink() == moved / "python/bin" / PYTHON
    assert heard.text == said["text"]
    assert [word.text for segment in heard.segments for word in segment.words]
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()} == before

    needed = required(ROOT, SITE)
    for found in needed:
        assert any((moved / "licenses" / f"{found.metadata['Name']}-{found.version}").iterdir())
    listed = (moved / "licenses/README.txt").read_text()
    assert "libx265" in listed
    bill = json.loads((moved / "sbom.cdx.json").read_text())
    assert len(bill["components"]) == len(needed)
    assert json.loads((moved / "metadata.json").read_text())["name"] == "qwen-asr"
    assert not [path for path in moved.rglob("*") if path.suffix == ".pyc" or path.match("*/tests/*.py")]
    for path in (moved / "venv/pyvenv.cfg", moved / "run.sh", moved / "metadata.json", moved / "sbom.cdx.json"):
        assert str(ROOT) not in path.read_text()
        assert str(made) not in path.read_text()
    shutil.rmtree(moved)
