"""The measures `stream` and `live`: text while a file is decoded, and text while somebody speaks."""
