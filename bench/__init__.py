"""How fast and how large: every figure beside what it is compared with, measured in the same run. `python -m bench`."""
