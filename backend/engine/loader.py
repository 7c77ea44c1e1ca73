"""The real Loader: checkpoints from disk or hub, onto the device that was chosen for them.

Imported only when LoadModel asks for it, because torch and the package take seconds that the port must not wait for.
"""

from __future__ import annotations

import logging

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils.logging import disable_progress_bar

from backend.checkpoint.find import Checkpoint, find, inspect
from backend.engine.model.aligner import QwenAligner
from backend.engine.model.recognizer import QwenRecognizer, load
from backend.engine.ops import device, malloc
from backend.engine.ops.int8 import can_quantize
from backend.errors import LoadRefused
from backend.options import LoadOptions

_log = logging.getLogger(__name__)

disable_progress_bars()  # stderr is a log file
disable_progress_bar()


def _recognizer_of(options: LoadOptions) -> Checkpoint:
    return find(options.model, file=options.model_file, folder=options.model_path)


def _aligner_of(options: LoadOptions) -> Checkpoint:
    return find(options.forced_aligner, folder=options.model_path)


class CheckpointLoader:
    """See serving/protocols.Loader."""

    def prepare(self) -> None:
        """That this module is imported is all."""

    def inspect(self, options: LoadOptions) -> None:
        placement = device.choose(options)
        if options.quantization and not can_quantize(placement.device):
            raise LoadRefused(f"Quantization int8 cannot be had on this device ({placement.device}); leave it empty")
        inspect(_recognizer_of(options), "recognizer")

    def load_recognizer(self, options: LoadOptions) -> QwenRecognizer:
        device.use_threads(options.threads)
        placement = device.choose(options)
        quantized = options.quantization == "int8"
        _log.info("loading the recogniser on %s%s", placement, ", decoder in int8" if quantized else "")
        with malloc.large_blocks_mmapped():
            loaded = load(_recognizer_of(options), placement)
            graphs = (options.batch_max_size, options.max_chunk_s) if options.cuda_graphs else None
            recognizer = QwenRecognizer(loaded, quantized, options.threads, graphs)
        recognizer.warm_up()
        return recognizer

    def load_aligner(self, options: LoadOptions) -> QwenAligner:
        found = _aligner_of(options)
        inspect(found, "aligner")
        placement = device.choose(options)
        _log.info("loading the aligner on %s", placement)
        with malloc.large_blocks_mmapped():
            return QwenAligner(load(found, placement))

    def reclaim(self) -> None:
        device.reclaim()
