"""What LocalAI's tools run as a Python backend's tests: `python -m unittest test.py`, with what install.sh installs.

The project's own tests are in the folder test/; `make test` runs those.
"""

from __future__ import annotations

import json
import sys
import unittest
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

from backend.checkpoint.find import find
from backend.wire import backend_pb2 as pb
from devtools.server_process import DEMO_ALIGNER, DEMO_MODEL, ServerProcess

HERE = Path(__file__).resolve().parent
AUDIO = HERE / "test/audio/demo.wav"


class TestBackend(unittest.TestCase):
    def test_the_demo_recording_is_transcribed_with_the_times_of_its_words(self) -> None:
        said = json.loads(AUDIO.with_suffix(".json").read_text(encoding="utf-8"))
        with ServerProcess((sys.executable, str(HERE / "backend.py"))) as server:
            self.assertEqual(server.stub.Health(pb.HealthMessage()).message, b"OK")
            options = pb.ModelOptions(Model=str(DEMO_MODEL), Options=[f"forced_aligner:{DEMO_ALIGNER}"])
            loaded = server.stub.LoadModel(options)
            self.assertEqual((loaded.success, loaded.message), (True, "Model loaded successfully"))
            request = pb.TranscriptRequest(dst=str(AUDIO), timestamp_granularities=["word"])
            heard = server.stub.AudioTranscription(request)
        self.assertEqual(heard.text, said["text"])
        self.assertEqual(len(heard.text.split()), sum(len(segment.words) for segment in heard.segments))

    def test_a_model_means_what_it_means_to_the_other_backends(self) -> None:
        spec = spec_from_file_location("entry", HERE / "backend.py")
        assert spec is not None
        assert spec.loader is not None
        entry = module_from_spec(spec)
        spec.loader.exec_module(entry)
        for name, file in (("a/b", str(DEMO_MODEL)), (str(DEMO_MODEL), ""), ("Qwen/Qwen3-ASR-0.6B", "/does/not/exist")):
            with self.subTest(name=name, file=file):
                try:
                    there = entry.checkpoint_of(SimpleNamespace(Model=name, ModelFile=file))
                except ModuleNotFoundError:
                    self.skipTest("LocalAI's common code is not beside this folder")
                self.assertEqual(find(name, file=file).name, there[0])


if __name__ == "__main__":
    unittest.main()
