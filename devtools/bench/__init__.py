"""Every figure beside what it is compared with, measured in the same run. `python -m devtools.bench`."""
