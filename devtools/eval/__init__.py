"""Accuracy of the running backend (`python -m devtools.eval`) and of its aligner alone (`devtools.eval.alignment`).

Everything is measured from outside: the backend runs as a child process and is called through gRPC, as the gateway
calls it. The baseline, the qwen-asr package, transcribes the same files in a process of its own.
"""
