"""Importing the package's models does not import its pipelines and what only these need."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = ("scipy", "sklearn", "numba", "dynet", "gradio", "nagisa")
IMPORTED = f"""
import json, sys
import backend.engine.loader
from transformers.utils import is_scipy_available, is_sklearn_available
print(json.dumps([[name for name in {HEAVY} if name in sys.modules], is_scipy_available(), is_sklearn_available()]))
"""


def test_unused_packages_are_not_imported_and_remain_available_to_others() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy, *available = json.loads(done.stdout)
    assert heavy == []
    assert available == [find_spec(name) is not None for name in ("scipy", "sklearn")]
