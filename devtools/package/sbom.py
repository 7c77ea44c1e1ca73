"""The list of a package's parts for programs: CycloneDX 1.5 as JSON, made from the metadata of what is installed.

The same parts give the same bytes: no time of day, and a serial number that follows from the contents.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from importlib.metadata import Distribution
from typing import Any

from packaging.utils import canonicalize_name

from devtools.package.distributions import dependencies_of
from devtools.package.licences import field, libraries_of, licence_of

_NAMESPACE = uuid.UUID("6b7f3c1e-3b0f-5a52-9a54-1f6f0a3b9d1c")


def bill_of_materials(version: str, needed: Sequence[Distribution], python: str = "") -> dict[str, Any]:
    """`version` of the backend itself; `python`: the version of the interpreter, if the package has one."""
    application = {
        "type": "application",
        "bom-ref": "qwen-asr",
        "name": "qwen-asr",
        "version": version,
        "licenses": [{"license": {"id": "MIT"}}],
    }
    components = [_component(found) for found in needed]
    if python:
        components.append(
            {
                "type": "platform",
                "bom-ref": "cpython",
                "name": "cpython",
                "version": python,
                "licenses": [{"license": {"id": "PSF-2.0"}}],
            }
        )
    refs = {canonicalize_name(found.metadata["Name"]): _purl(found) for found in needed}
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": application},
        "components": components,
        "dependencies": [{"ref": "qwen-asr", "dependsOn": [component["bom-ref"] for component in components]}]
        + [
            {"ref": _purl(found), "dependsOn": [refs[name] for name in dependencies_of(found) if name in refs]}
            for found in needed
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True))
    return {**document, "serialNumber": f"urn:uuid:{serial}"}


def _purl(found: Distribution) -> str:
    version = found.version.replace("+", "%2B")
    return f"pkg:pypi/{canonicalize_name(found.metadata['Name'])}@{version}"


def _component(found: Distribution) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(found),
        "purl": _purl(found),
        "name": found.metadata["Name"],
        "version": found.version,
        "licenses": [{"license": {"name": licence_of(found)}}],
    }
    if expression := field(found, "License-Expression"):
        component["licenses"] = [{"expression": expression}]
    if libraries := libraries_of(found):
        component["components"] = [
            {"type": "library", "name": name, "licenses": [{"license": {"name": licence}}]}
            for name, licence in sorted(libraries.items())
        ]
    return component
