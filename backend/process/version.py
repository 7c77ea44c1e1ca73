"""The backend's version; a test holds it against pyproject.toml, which an installed folder need not have."""

VERSION = "0.2.0"
