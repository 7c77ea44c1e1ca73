"""The backend as a child process, as the tools start it: the doctor's, which cannot import devtools."""

from backend.doctor.places import DEMO_ALIGNER, DEMO_MODEL, ROOT
from backend.doctor.server_process import RUN_SH, ServerFailed, ServerProcess, free_port

__all__ = ["DEMO_ALIGNER", "DEMO_MODEL", "ROOT", "RUN_SH", "ServerFailed", "ServerProcess", "free_port"]
