"""Stress tests of the running server: load, faults, signals and leaks (soak), and thousands of bad inputs (fuzz).

The server under test is a process of its own, called through gRPC: run.sh with the demo checkpoints, or
faulty_server.py, the same server with models that fail on demand. The tests are pytest functions; the commands run them
with the full profile, and test/devtools/stress with the short one. Nothing in backend/ imports this package.
"""
