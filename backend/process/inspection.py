"""Whether other processes of the same user may look into this one, which holds the token.

On Linux a process that is not dumpable is root's in /proc: its environment, memory and descriptors are closed to its
own user, as is ptrace. Root, and what has CAP_SYS_PTRACE, may look all the same.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

_PR_SET_DUMPABLE = 4
_SWITCH = "QWEN_ASR_INSPECTABLE"


def forbid(environment: Mapping[str, str]) -> None:
    """Close this process to its user, unless the environment's QWEN_ASR_INSPECTABLE says true, 1, yes or on."""
    if sys.platform == "linux" and environment.get(_SWITCH, "").strip().lower() not in ("true", "1", "yes", "on"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
