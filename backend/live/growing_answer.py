"""The answers for one window of sound that grows: what of their text has been sent, and the draft of the next one."""

from __future__ import annotations

from collections.abc import Sequence

from backend.live.settled_text import settled
from backend.pipeline.decode_settings import FirstRun
from backend.serving.protocols import Recognition, Recognizer
from backend.transcript.matching import fold
from backend.transcript.scripts import pieces
from backend.transcript.splicing import continuation


class GrowingAnswer:
    """`sent`: text of this window that was sent before it began, see `carried_to`."""

    def __init__(self, recognizer: Recognizer, language: str | None, hold: int) -> None:
        """`language`: the code that is forced, or None. `hold`: words that are held back."""
        self._recognizer = recognizer
        self._language = language
        self._hold = hold
        self.sent = ""
        self.last: Recognition | None = None
        self.heard_to = 0  # where the sound of the last answer ends, in samples of the stream
        self._draft: tuple[int, ...] = ()
        self._fixed = 0  # tokens of the draft that stand for what has been sent, and must
        self._sent_ids: tuple[int, ...] = ()  # tokens that begin with what has been sent

    @property
    def run(self) -> FirstRun:
        """What the model is given beside the window."""
        return FirstRun(draft=self._draft, fixed=self._fixed)

    @property
    def run_of_sent(self) -> FirstRun:
        """The same, with what has been sent as the beginning of the answer in any case."""
        return FirstRun(draft=self._sent_ids, fixed=len(self._sent_ids))

    def carried_to(self, carried: str) -> GrowingAnswer:
        """The answer for the window behind a cut, for which the text `carried` has been sent already."""
        following = GrowingAnswer(self._recognizer, self._language, self._hold)
        if carried:
            tokens = (token.id for token in self._recognizer.tokens_of(carried))
            following.sent = carried
            following.heard_to = self.heard_to
            following._sent_ids = following._draft = (*self._tag(), *tokens)
            following._fixed = len(following._draft)
        return following

    def settle(self, answer: Recognition, end: int) -> str:
        """Take the next answer; the beginning of it that is settled. "": nothing beyond what has been sent is.

        `end`: where its sound ends, in samples of the stream.
        """
        if not answer.finished:  # a repetition loop, or the budget's end: what it says is no draft either
            return ""
        self.last, self.heard_to = answer, end
        if not answer.text.startswith(self.sent):
            self._draft, self._fixed = self._sent_ids, len(self._sent_ids)
            return ""
        self._draft = answer.ids
        agreed = len(self._recognizer.spell(answer.ids[: answer.agreed], self._language).text)
        text = settled(answer, agreed, self._hold)
        return text if len(text) > len(self.sent) else ""

    def contradicts(self, text: str) -> bool:
        """Whether the text begins with other words than have been sent; case and marks do not count."""
        sent, words = _words(self.sent), _words(text)
        return words[: len(sent)] != sent

    @property
    def heard(self) -> str:
        """The text of the last answer, or what has been sent where that begins otherwise."""
        return self.last.text if self.last is not None and self.last.text.startswith(self.sent) else self.sent

    def agree_but_for_the_end(self, one: str, other: str) -> bool:
        """Whether the texts have the same words, but for as many last ones as are held back; at least for one."""
        words, others = _words(one), _words(other)
        count = max(max(len(words), len(others)) - max(self._hold, 1), 0)
        return words[:count] == others[:count]

    def continued(self, text: str) -> str:
        """What has been sent, and what follows it by another text of the same sound."""
        return self.sent + continuation(self.sent, text)

    def record_sent(self, text: str) -> None:
        """The beginning `text` of the last answer has been sent."""
        self.sent = text
        if self.last is not None:
            self._sent_ids = self._ids_of(text, self.last.ids)

    def _ids_of(self, text: str, ids: Sequence[int]) -> tuple[int, ...]:
        """As few of the tokens as begin with the text, by bisection: what they spell grows with them."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self._recognizer.spell(ids[:middle], self._language).text) >= len(text):
                high = middle
            else:
                low = middle + 1
        return tuple(ids[:low])

    def _tag(self) -> tuple[int, ...]:
        """The tokens of the language tag, with which the last answer began; none where the language is forced."""
        if self._language is not None or self.last is None:
            return ()
        ids = self.last.ids
        found = (size for size in range(len(ids) + 1) if self._recognizer.spell(ids[:size], None).language)
        return ids[: next(found, 0)]


def _words(text: str) -> list[str]:
    return [word for begin, end in pieces(text) if (word := fold(text[begin:end]))]
