"""Writes a folder as an image: a tar in the docker-archive format, as `docker save` writes it, without a Docker engine.

`local-ai backends install ocifile:///abs/qwen-asr.tar qwen-asr` reads it, and `docker load`. The image's root is the
folder's contents. The same contents give the same bytes: entries are in order, and have neither times nor owners.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_LARGE = ("python", "lib", "venv")  # the lower layers, which hardly change from one version to the next


def write_image(folder: Path, target: Path, name: str) -> None:
    """`name`: what the image is called, with its tag. A target that exists is replaced once the new one is whole."""
    lower = [folder / part for part in _LARGE if (folder / part).is_dir()]
    upper = [path for path in sorted(folder.iterdir()) if path not in lower]
    unfinished = target.with_name(target.name + ".new")
    try:
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
            layers = [_add_layer(archive, target.parent, folder, part) for part in (*([path] for path in lower), upper)]
            config = _config(layers)
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add_bytes(archive, config_name, config)
            manifest = [
                {"Config": config_name, "RepoTags": [name], "Layers": [f"{layer}/layer.tar" for layer in layers]}
            ]
            _add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _add_layer(archive: tarfile.TarFile, scratch: Path, folder: Path, parts: Iterable[Path]) -> str:
    """Adds what lies at `parts` as a layer, and returns its digest, which is its name."""
    with tempfile.TemporaryFile(dir=scratch) as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as layer:
            for part in parts:
                for path in (part, *sorted(part.rglob("*") if part.is_dir() else ())):
                    _add_path(layer, path, str(path.relative_to(folder)))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        _add_file(archive, f"{digest}/layer.tar", file)
    return digest


def _add_path(layer: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    if path.is_symlink():
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 - as it is written
        layer.addfile(entry)
    elif path.is_dir():
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(entry)
    else:
        entry.size, entry.mode = path.stat().st_size, 0o755 if os.access(path, os.X_OK) else 0o644
        with path.open("rb") as file:
            layer.addfile(entry, file)


def _add_file(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = file.seek(0, os.SEEK_END)
    file.seek(0)
    archive.addfile(entry, file)


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_file(archive, name, io.BytesIO(content))


def _config(layers: list[str]) -> bytes:
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/run.sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "devtools.package"} for _ in layers],
    }
    return json.dumps(config).encode()
