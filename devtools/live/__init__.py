"""`make live`: captions of sound that is still arriving, and the client of AudioTranscriptionLive that the tools use.

A client: no torch here, and nothing that only tests and measurements need.
"""
