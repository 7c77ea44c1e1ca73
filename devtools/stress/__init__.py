"""What the stress tests need: servers, clients, inputs, results. The tests themselves are in test/devtools/stress.

The server is a process, called through gRPC: run.sh with the demo checkpoints, or faulty_server.py, the same server
with models that fail on demand. Nothing in backend/ imports this package.
"""
