"""What is resident: a model in memory, one whose weights were released for idleness, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backend.errors import LoadRefused, ModelNotLoaded, named
from backend.options.load_options import LoadOptions
from backend.serving.idle.unloaded import UnloadedModel
from backend.serving.model_instance import Instance, Lean


class ResidentModel:
    """The state that loads and releases share. For the event loop's thread.

    `lock`: held by every load, and by every release for idleness. Free takes no lock.
    `instance`: what is in memory. Assigned where the model stays and what is around it changes; else by `install`.
    `unloaded`: what a request brings back; None while there is an instance.
    `free_count`: how often Free was called: a load that it overtook must not bring its model back.
    """

    def __init__(self, on_state_change: Callable[[bool], None]) -> None:
        """`on_state_change`: see Resident."""
        self.lock = asyncio.Lock()
        self.instance: Instance | None = None
        self.unloaded: UnloadedModel | None = None
        self.free_count = 0
        self._on_state_change = on_state_change

    @property
    def either(self) -> Instance | UnloadedModel | None:
        """The model, its weights may be released. From any thread."""
        return self.instance or self.unloaded

    @property
    def options(self) -> LoadOptions | None:
        """Those of the model, its weights may be released; None without a model. From any thread."""
        model = self.either
        return model.options if model else None

    @property
    def names(self) -> str:
        """Of the model and its aligner, for the log."""
        options = self.options
        if options is None:
            return "no model"
        aligner = f"with the forced aligner '{named(options.forced_aligner)}'" if options.forced_aligner else "alone"
        return f"the model '{named(options.model)}' {aligner}"

    def current(self) -> Instance:
        """The instance. Raises ModelNotLoaded."""
        if self.instance is None:
            raise ModelNotLoaded
        return self.instance

    def with_models_of(self, lean: Lean) -> Lean | None:
        """The instance, if it has the recogniser of `lean` and names the same aligner, which it may have or not."""
        instance = self.instance
        return instance if isinstance(instance, Lean) and instance.has_models_of(lean) else None

    def install(self, instance: Instance | None) -> None:
        """Make another model resident, or none."""
        self.instance, self.unloaded = instance, None
        self._on_state_change(instance is not None)

    def refuse_if_freed_since(self, free_count: int) -> None:
        """Raises LoadRefused."""
        if free_count != self.free_count:
            raise LoadRefused("the model was freed while it was being loaded")
