"""How long and how wide the stress tests run: the full profile of the commands, and the short one of the test suite."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """`load_s`: duration of each sustained load. The other numbers count; see where they are used."""

    load_s: float = 30.0
    streams: int = 16
    overload_s: float = 8.0
    cancels: int = 20
    endless: int = 2  # requests without an end, at SIGTERM
    kills: int = 40
    requests: int = 4000
    growth_mib: float = 5.0  # at most, per 1000 requests; in a short run one arena of the allocator is a slope
    cases: int = 2000
    brief: bool = False  # without the bombs
    seed: int = 1


SHORT = Profile(load_s=3.0, streams=4, overload_s=2.0, cancels=2, endless=0, kills=3, requests=600, growth_mib=30.0,
                cases=300, brief=True)  # fmt: skip
