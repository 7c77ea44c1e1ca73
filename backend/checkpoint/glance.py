"""What the disk alone shows of a load that would be refused: milliseconds, no torch, no network.

A process whose first load is refused here has not imported torch, which takes seconds and 0.7 GB.
"""

from __future__ import annotations

from backend.checkpoint.aligner_lookup import inspect_aligner
from backend.checkpoint.find import find, inspect
from backend.options.load_options import LoadOptions


def refuse_at_a_glance(options: LoadOptions) -> None:
    """Raises CheckpointRefused or AlignerRefused. A hub id passes: the load itself asks the hub."""
    checkpoint = find(options.model, file=options.model_file, folder=options.model_path, revision=options.revision)
    if checkpoint.local:
        inspect(checkpoint, "recognizer" if options.task == "transcribe" else None)
    inspect_aligner(options)
