"""The Loader of real models: checkpoints from disk or the hub, onto the device that is chosen for them.

server.py imports this module only when a model is wanted: importing torch and the package takes seconds, and the port
must be open before that.
"""

from __future__ import annotations

import logging

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from backend.checkpoint.find import Checkpoint, find, inspect
from backend.engine.model.aligner import QwenAligner
from backend.engine.model.model_builder import build_model
from backend.engine.model.recognizer import QwenRecognizer
from backend.engine.ops import device, malloc
from backend.engine.ops.int8 import can_quantize
from backend.errors import LoadRefused
from backend.options import LoadOptions

_log = logging.getLogger(__name__)

disable_progress_bars()  # stderr is the log
disable_progress_bar()


class CheckpointLoader:
    """See serving/protocols.Loader."""

    def prepare(self) -> None:
        """Nothing to do: importing this module has imported what every load needs."""

    def inspect(self, options: LoadOptions) -> None:
        placement = device.choose(options)
        if options.quantization and not can_quantize(placement.device):
            raise LoadRefused(f"Quantization int8 cannot be had on this device ({placement.device}); leave it empty")
        inspect(_find_recognizer(options), "recognizer")

    def load_recognizer(self, options: LoadOptions) -> QwenRecognizer:
        device.use_threads(options.threads)
        placement = device.choose(options)
        quantized = options.quantization == "int8"
        _log.info("loading the recogniser on %s%s", placement, ", decoder in int8" if quantized else "")
        with malloc.large_blocks_mmapped():
            built = build_model(_find_recognizer(options), placement)
            recognizer = QwenRecognizer(built, quantized, options.threads)
        recognizer.warm_up()
        if options.cuda_graphs:
            recognizer.capture_steps(options.batch_max_size or recognizer.batching.rows, options.max_chunk_s)
        return recognizer

    def load_aligner(self, options: LoadOptions) -> QwenAligner:
        checkpoint = _find_aligner(options)
        inspect(checkpoint, "aligner")
        placement = device.choose(options)
        _log.info("loading the aligner on %s", placement)
        with malloc.large_blocks_mmapped():
            return QwenAligner(build_model(checkpoint, placement))

    def reclaim(self) -> None:
        device.reclaim()


def _find_recognizer(options: LoadOptions) -> Checkpoint:
    return find(options.model, file=options.model_file, folder=options.model_path)


def _find_aligner(options: LoadOptions) -> Checkpoint:
    return find(options.forced_aligner, folder=options.model_path)
