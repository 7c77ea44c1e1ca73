"""How much audio may run together: any, until the memory runs out; then half of that, until that has gone well."""

from __future__ import annotations

from math import inf

_LEAST_S = 30.0  # however often the memory ran out
_WENT_WELL_S = 3600.0  # answered since: one batch in an hour of sound may be lost to learning that it is still too much


class OomBackoff:
    """`most_s` of audio may run together. One thread tells how it goes; any may have it forgotten."""

    def __init__(self) -> None:
        self.forget()

    def ran_out(self, seconds: float) -> None:
        """So much was too much: from one request that is too large, or because others need the memory now."""
        self._too_much_s = seconds
        self.most_s = max(seconds / 2, _LEAST_S)
        self._well_s = 0.0

    def answered(self, seconds: float) -> None:
        """So much went well. Enough of it doubles the bound; what was too much once is no bound after that."""
        self._well_s += seconds
        if self._well_s >= _WENT_WELL_S:
            self.most_s = 2 * self.most_s if self.most_s < self._too_much_s else inf
            self._well_s = 0.0

    def forget(self) -> None:
        """There is another model."""
        self.most_s = self._too_much_s = inf
        self._well_s = 0.0
