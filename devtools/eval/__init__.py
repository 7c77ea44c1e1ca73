"""How well the running backend hears (`python -m devtools.eval`) and how well its aligner alone places words
(`python -m devtools.eval.alignment`).

Measures from outside: the backend runs as a child through run.sh and is asked through gRPC, as the gateway asks it; the
baseline, the package's own way, runs on the same files in a process of its own. Nothing in backend/ imports this.
"""
