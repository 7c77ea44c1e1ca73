"""Which jobs run together: what the scheduler needs of a session, and the key by which jobs find the same one.

Rules: jobs with equal keys share a session. A kind holds its model, and only waiting and running jobs hold a kind. So
a kind keeps no model in memory that no request uses, and the model's id is not used again while its key is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, Protocol, TypeVar

from backend.errors import AsrError

_MOST_LIVE_PLACES = 4

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class ScheduledSession(Protocol[Item, Result_co]):
    """A session as the scheduler sees it, see protocols.Session: items are added, and each ends with a result.

    An AsrError in place of a result is the failure of one item.
    """

    def __len__(self) -> int: ...
    def add(self, items: Sequence[Item], /) -> None: ...
    def step(self) -> Sequence[tuple[Item, Result_co | AsrError]]: ...
    def drop(self, item: Item, /) -> None: ...


class SessionKey(NamedTuple):
    """Equal for jobs that share a session: the same work, by the same model instance, in batches of the same size."""

    work: str
    model_id: int
    max_batch: int


@dataclass(frozen=True, eq=False)
class SessionKind(Generic[Item, Result]):
    """The sessions in which `model` does its `work`; `open_session` returns an empty one.

    `max_batch`: jobs in a session; `max_prefill_s`: seconds of audio that are added to it together; `batch_wait_s`: how
    long a session that starts with one job waits for more. `joins_in_groups`, `slow_prefill`: see fair_queue.py.
    `prepare`: what can be done for an item while it waits, in a thread of its own; returns the item to add instead.

    `is_live`: the jobs are of sound that is still arriving. They share the session with those of files, and beside the
    places for `max_batch` files it has `live_places` that only they may take.
    """

    work: str
    model: object
    open_session: Callable[[], ScheduledSession[Item, Result]]
    max_batch: int
    max_prefill_s: float = inf
    batch_wait_s: float = 0.0
    joins_in_groups: bool = False
    slow_prefill: bool = False
    prepare: Callable[[Item], Item] | None = None
    is_live: bool = False
    live_places: int = 0

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.work, id(self.model), self.max_batch)


def live_places(max_batch: int) -> int:
    """The places of a session beyond those for files: a caption does not wait until one of eight files has ended."""
    return min(_MOST_LIVE_PLACES, max_batch)
