"""The Loader of real models: checkpoints from disk or the hub, onto the device that is chosen for them.

server.py imports this module only when a model is wanted: importing torch takes seconds, and the port must be open
before that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

from backend.chat_format.tokenizer import forget_vocabularies
from backend.checkpoint import fit
from backend.checkpoint.aligner_lookup import find_aligner, inspect_aligner
from backend.checkpoint.feature_extractor import chunk_s
from backend.checkpoint.find import Checkpoint, find, inspect
from backend.checkpoint.hub import downloaded
from backend.checkpoint.layout import EXAMPLES
from backend.checkpoint.validation import read_json_object
from backend.engine.model.aligner import QwenAligner
from backend.engine.model.model_builder import BuiltModel, build_model
from backend.engine.model.recognizer import QwenRecognizer
from backend.engine.ops import device, malloc
from backend.engine.ops.device import Placement
from backend.engine.ops.int8 import can_quantize
from backend.errors import CheckpointRefused, InvalidOption, LoadRefused, NonFiniteCheckpoint
from backend.options.load_options import LoadOptions
from backend.serving.faults import untraced
from backend.serving.protocols import Kind
from backend.serving.session_kind import live_places

T = TypeVar("T")

_log = logging.getLogger(__name__)

_MOST_INSPECTED = 2


class CheckpointLoader:
    """See serving/protocols.Loader."""

    def __init__(self) -> None:
        # What `inspect` found for the last options and for those before them, which a failed load brings back.
        self._inspected: dict[LoadOptions, Checkpoint] = {}

    def inspect(self, options: LoadOptions) -> Kind:
        placement = device.choose(options)
        if options.quantization and not can_quantize(placement.device):
            raise LoadRefused(f"Quantization int8 cannot be had on this device ({placement.device}); leave it empty")
        checkpoint = inspect(_find_model(options), "recognizer" if options.task == "transcribe" else None)
        if checkpoint.kind == "recognizer" and options.task == "align" and not options.forced_aligner:
            raise InvalidOption("task", f"align needs the option forced_aligner, such as {EXAMPLES['aligner']}")
        if checkpoint.kind == "aligner" and options.forced_aligner:
            raise InvalidOption("forced_aligner", "is one too many: the model is an aligner itself")
        if checkpoint.kind == "aligner" and options.quantization:
            raise LoadRefused("Quantization int8 is for recognisers, and this model is an aligner; leave it empty")
        inspect_aligner(options)
        self._remember(options, checkpoint)
        return checkpoint.kind or "recognizer"

    def _remember(self, options: LoadOptions, checkpoint: Checkpoint) -> None:
        self._inspected.pop(options, None)
        self._inspected[options] = checkpoint
        while len(self._inspected) > _MOST_INSPECTED:
            del self._inspected[next(iter(self._inspected))]

    def _model(self, options: LoadOptions) -> Checkpoint:
        """What `inspect` found."""
        checkpoint = self._inspected.get(options) or _find_model(options)
        self._remember(options, checkpoint)
        return checkpoint

    def load_recognizer(self, options: LoadOptions) -> QwenRecognizer:
        checkpoint = self._model(options)
        device.use_threads(options.threads)

        def load(placement: Placement) -> QwenRecognizer:
            quantized = options.quantization == "int8"
            _log.info("loading the recogniser on %s%s", placement, ", decoder in int8" if quantized else "")
            with malloc.large_blocks_mmapped():
                built = build_model(checkpoint, placement)
                fit.check(_need(built, placement, options), device.room(placement.device))
                recognizer = QwenRecognizer(built, quantized, options.threads)
            recognizer.warm_up()
            if options.cuda_graphs:
                rows = options.batch_max_size or recognizer.batching.rows
                recognizer.capture_steps(rows + live_places(rows), options.max_chunk_s or recognizer.chunk_s)
            return recognizer

        return _float32_if_it_overflows(load, options)

    def load_aligner(self, options: LoadOptions) -> QwenAligner:
        """The aligner that the options name, or the model itself, where it is one."""
        is_model = not options.forced_aligner
        checkpoint = inspect(self._model(options) if is_model else find_aligner(options), "aligner")

        def load(placement: Placement) -> QwenAligner:
            _log.info("loading the aligner on %s", placement)
            with malloc.large_blocks_mmapped():
                built = build_model(checkpoint, placement)
                weights = fit.weight_bytes(built.folder, placement.dtype.itemsize)
                fit.check(fit.Need(weights), device.room(placement.device))
                aligner = QwenAligner(built, options.threads)
            if is_model:
                aligner.warm_up()
            return aligner

        return _float32_if_it_overflows(load, options)

    def reclaim(self, *, idle: bool = False) -> None:
        if idle:
            forget_vocabularies()
        device.reclaim()


def _float32_if_it_overflows(load: Callable[[Placement], T], options: LoadOptions) -> T:
    """What `load` makes where the options are placed; in float32 if float16 was our own choice and the model overflows.

    What was loaded in float16 is freed before the second load, so that no more than one model is in memory.
    """
    placement = device.choose(options)
    try:
        return load(placement)
    except NonFiniteCheckpoint as error:
        if placement.dtype is not torch.float16 or options.dtype != "auto":
            raise
        _log.warning("in float16: %s; loading again in float32, which takes twice the memory and is slower", error)
        untraced(error)  # its traceback would keep what was loaded
    device.reclaim()
    return load(device.in_float32(placement))


def _need(built: BuiltModel, placement: Placement, options: LoadOptions) -> fit.Need:
    """Of the recogniser, and of the aligner that the first request for times brings, if its files are on this disk."""
    itemsize, aligner = placement.dtype.itemsize, 0.0
    config = read_json_object(built.folder / "config.json")
    if options.forced_aligner:
        with suppress(CheckpointRefused):  # a request for times will say what is wrong with it
            checkpoint = find_aligner(options)
            name = checkpoint.name
            folder = Path(name) if checkpoint.local else downloaded(name, checkpoint.revision)
            aligner = fit.weight_bytes(folder, itemsize) if folder else 0.0
    return fit.Need(
        fit.weight_bytes(built.folder, itemsize, int8=options.quantization == "int8"),
        aligner,
        fit.row_bytes(config, itemsize, options.max_chunk_s or chunk_s(built.processor.features.chunk_length)),
        options.batch_max_size or device.batching(placement.device).rows,
    )


def _find_model(options: LoadOptions) -> Checkpoint:
    return find(options.model, file=options.model_file, folder=options.model_path, revision=options.revision)
