"""What made the demo checkpoints in test/models and the recordings in test/audio. backend/ imports nothing from here.

espeak-ng speaks one word at a time, so every word's start and end are known by construction.
"""
