"""What a live stream runs with."""

from __future__ import annotations

from dataclasses import dataclass

from backend.options.load_options import TranscribeOptions
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import Lean
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler


@dataclass(frozen=True)
class LiveSetup:
    """The model that the stream began with, where it runs, and the options of the stream's last config."""

    resident: Resident
    scheduler: Scheduler
    instance: Lean
    options: TranscribeOptions
    stats: RequestStats
