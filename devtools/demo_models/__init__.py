"""What made the demo checkpoints in test/models and the recordings in test/audio.

Speech comes from espeak-ng, one word at a time, so that every word's start and end are known by construction.
Nothing here is imported by backend/.
"""
