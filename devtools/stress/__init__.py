"""What breaks such a server, tried: load, faults, signals and leaks (`devtools.stress.soak`), and thousands of bad
inputs (`devtools.stress.fuzz`).

The server under trial is always a process of its own, asked through gRPC: either run.sh with the demo checkpoints, or
victim.py, the very same server with models that can be told to fail. Every measured value stands beside its
goal, and a goal that was missed makes the exit code 1. Nothing in backend/ imports this.
"""
