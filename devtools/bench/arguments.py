"""For devtools/stress/soak.py."""

from devtools.arguments import some_of as some_of
