"""Text while somebody speaks: how late each word is shown, how often text is wrong, and where an utterance is ended."""
