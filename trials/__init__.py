"""What breaks such a server, tried: load, faults, signals and leaks (`python -m trials.soak`), and thousands of bad
inputs (`python -m trials.fuzz`).

The server under trial is always a process of its own, asked through gRPC: either run.sh with the demo checkpoints, or
trials/victim.py, the very same server with models that can be told to fail. Every measured value stands beside its
goal, and a goal that was missed makes the exit code 1. Nothing in backend/ imports this.
"""
