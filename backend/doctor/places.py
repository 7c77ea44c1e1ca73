"""Where the doctor finds what is installed: the folder that holds run.sh, and below it the demo's models and sound."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO_MODEL, DEMO_ALIGNER = ROOT / "test/models/asr", ROOT / "test/models/aligner"
DEMO_AUDIO = ROOT / "test/audio/demo.wav"
DEMO_TRUTH = ROOT / "test/audio/demo.json"
SOUNDS = Path(__file__).with_name("sounds")
