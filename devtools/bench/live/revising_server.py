"""The backend with random weights that answer a growing window as a real checkpoint does.

`python -m devtools.bench.live.revising_server --addr HOST:PORT`

A bench checkpoint (checkpoints.py) says one text, whatever it hears. So the drafts of a live window would always be
right, and all of its words would leave after the second decode, while the window is short and cheap. Here the loaded
recogniser is given other work, at the one place where utterances reach it; all else is the backend's own:

- An answer has as many words as are spoken in so much sound, of streams and files alike: it ends there as if the model
  had ended it. So each decode of a growing window has new words, and their token steps.
- The last WRONG_TOKENS tokens of a draft are other ones. What follows them is decoded again, token by token, as it is
  where the end of an answer changes from decode to decode. They are replaced and not dropped, because a real draft has
  them, too: each is a row more in the prefill and in its logits, and its place in the cache is given up again.

The answers are the same as with right drafts. What two decodes agree on, which is what may leave, is shorter by
WRONG_TOKENS. Of the demo's decodes one token at the end was wrong (p50), or two (p99): three err on the dear side.
"""

from __future__ import annotations

import os

from backend.process import parent_watch

parent_watch.watch(os.environ)

import argparse  # noqa: E402
import logging  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402

from backend.engine.loader import CheckpointLoader  # noqa: E402
from backend.engine.model.recognizer import QwenRecognizer  # noqa: E402
from backend.errors import AsrError  # noqa: E402
from backend.options.load_options import LoadOptions  # noqa: E402
from backend.process import log  # noqa: E402
from backend.server import run  # noqa: E402
from backend.serving.protocols import SAMPLE_RATE, Recognition, Session, Utterance  # noqa: E402
from devtools.bench.benchmark import CLIP_WORDS  # noqa: E402
from devtools.bench.clips import CLIP_S  # noqa: E402

WORDS_PER_S = CLIP_WORDS / CLIP_S
WRONG_TOKENS = 3
_TAG_TOKENS = 3  # "language", " English", "<asr_text>"; a word is one token


class RevisingSession:
    """A session that decodes what `as_revised` makes of its utterances. See serving/protocols.Session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._added: list[tuple[Utterance, Utterance]] = []  # as asked for, and as it is decoded

    def __len__(self) -> int:
        return len(self._session)

    def add(self, utterances: Sequence[Utterance]) -> None:
        revised = [as_revised(utterance) for utterance in utterances]
        self._session.add(revised)
        self._added += zip(utterances, revised, strict=True)

    def step(self) -> list[tuple[Utterance, Recognition | AsrError]]:
        ended = {id(revised): result for revised, result in self._session.step()}
        found = [(asked, ended[id(revised)]) for asked, revised in self._added if id(revised) in ended]
        self._added = [pair for pair in self._added if id(pair[1]) not in ended]
        return [(asked, _as_ended(asked, result)) for asked, result in found]

    def drop(self, utterance: Utterance) -> None:
        for asked, revised in self._added:
            if asked is utterance:
                self._session.drop(revised)
        self._added = [pair for pair in self._added if pair[0] is not utterance]


class RevisingLoader(CheckpointLoader):
    """Loads recognisers whose sessions are RevisingSessions."""

    def load_recognizer(self, options: LoadOptions) -> QwenRecognizer:
        recognizer = super().load_recognizer(options)
        open_session = recognizer.session
        recognizer.session = lambda: RevisingSession(open_session())  # type: ignore[method-assign, assignment, return-value]
        return recognizer


def as_revised(utterance: Utterance) -> Utterance:
    """The utterance with the end of its draft wrong, and its answer as long as its sound."""
    # what has been sent of a window, its fixed tokens, begins the answer in any case
    at = max(len(utterance.draft) - WRONG_TOKENS, utterance.fixed)
    # another token of the vocabulary, which has an even size
    wrong = tuple(token ^ 1 for token in utterance.draft[at:])
    return replace(utterance, draft=(*utterance.draft[:at], *wrong), max_new_tokens=_length(utterance))


def _length(utterance: Utterance) -> int:
    """Tokens of the answer."""
    words = max(round(WORDS_PER_S * utterance.samples.size / SAMPLE_RATE), 1)
    return min(max(_TAG_TOKENS + words, utterance.fixed + 1), utterance.max_new_tokens)


def _as_ended(asked: Utterance, result: Recognition | AsrError) -> Recognition | AsrError:
    """An answer that is as long as its sound is one that the model has ended."""
    if isinstance(result, AsrError) or result.looped or _length(asked) == asked.max_new_tokens:
        return result
    return replace(result, finished=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="devtools.bench.live.revising_server", description="The bench's live server.")
    parser.add_argument("--addr", required=True)
    arguments = parser.parse_args(argv)
    log.to_stderr()
    return run(arguments.addr, os.environ, RevisingLoader())


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)
