"""What a live stream runs with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.errors import CapabilityMissing
from backend.options.load_options import LoadOptions, TranscribeOptions
from backend.pipeline.prompt import check_token_limit
from backend.process.request_stats import RequestStats
from backend.serving.model_instance import AlignerAlone, Instance, Lean
from backend.serving.resident import Resident
from backend.serving.scheduler import Scheduler


@dataclass(frozen=True)
class LiveSetup:
    """The model that the stream began with, where it runs, and the options of the stream's last config.

    `model`: None while it is loaded again, after it was released for idleness; `load` has its options anyway.
    """

    resident: Resident
    scheduler: Scheduler
    model: Lean | None
    load: LoadOptions
    options: TranscribeOptions
    stats: RequestStats

    @property
    def instance(self) -> Lean:
        """The model, once it is loaded."""
        assert self.model is not None
        return self.model

    async def loaded(self) -> LiveSetup:
        """The same with the model in memory.

        Raises ModelNotLoaded, ReloadFailed, CapabilityMissing or PromptTooLong.
        """
        if self.model is not None:
            return self
        model = lean_of(await self.resident.acquired())
        await check_token_limit(self.options.prompt, model.recognizer)
        return replace(self, model=model, load=model.options)


def lean_of(instance: Instance) -> Lean:
    """Raises CapabilityMissing for a model that aligns known texts."""
    if instance.aligns or isinstance(instance, AlignerAlone):
        raise CapabilityMissing("AudioTranscriptionLive")
    return instance
