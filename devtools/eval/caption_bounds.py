"""How many captions are within their bounds, beside segments that are sentences: the demo set and random texts.

`python -m devtools.eval.caption_bounds COUNT`. The property tests of captions have the same generator and bounds.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from random import Random

from tqdm import tqdm

from backend.transcript.scripts import pieces
from backend.transcript.segments import Segment, SegmentRules, merge
from backend.transcript.subtitles.captions import Caption, CaptionRules, line_rules
from backend.transcript.subtitles.line_breaks import Break, Layout
from backend.transcript.words import Word, place
from devtools.arguments import count
from devtools.eval import manifest
from devtools.tables import aligned

RULES = CaptionRules()
LATIN = (
    "the a of speech model listens carefully to every word, that we say. And Anna Smith pays 10 000 euros! Why? now"
).split()
CHINESE = [*"今天天气很好", "我", "们，", "去", "公", "园。", "你", "说", "什", "么？", "好"]
JAPANESE = ["今日", "は、", "天気", "が", "いい", "です", "ね。", "コン", "ピュ", "ーター", "を", "買い", "ました。"]
THAI = ["สวัส", "ดี", "ครับ ", "วัน", "นี้", "อา", "กาศ", "ดี ", "มาก"]
VOCABULARIES = [(LATIN, "en"), (CHINESE, "zh"), (JAPANESE, "ja"), (THAI, "th"), ([*LATIN, *CHINESE], "mixed")]
GAPS_S = [0.0, 0.0, 0.0, 0.05, 0.1, 0.4, 1.5, 8.0]


def text_of(words: Sequence[str], language: str) -> str:
    return ("" if language in {"zh", "ja", "th"} else " ").join(words).strip()


def timed(text: str, times: Sequence[tuple[float, float]]) -> list[Word]:
    """The words of `text`: gap before and duration of each, in seconds; the last pair goes on for more words."""
    words, at = [], 0.0
    for number, (begin, end) in enumerate(pieces(text)):
        gap_s, duration_s = times[number % len(times)]
        words.append(Word(begin, end, at + gap_s, at + gap_s + duration_s))
        at += gap_s + duration_s
    return words


def recording(random: Random, most: int = 60) -> tuple[str, list[Word]]:
    """A text of up to `most` parts in Latin, Chinese, Japanese, Thai or mixed script, and its words with any times."""
    vocabulary, language = random.choice(VOCABULARIES)
    text = text_of(random.choices(vocabulary, k=random.randint(1, most)), language)
    times = [(random.choice(GAPS_S), random.uniform(0.04, 0.9)) for _ in range(random.randint(3, most))]
    return text, timed(text, times)


def faults(
    words: Sequence[Word], layout: Layout, cut: Sequence[Caption], rules: CaptionRules = RULES
) -> Iterator[tuple[int, str]]:
    """The captions out of bounds, by their number, with the bound; counted here from the definition of each bound."""
    for number, caption in enumerate(cut):
        next_s = words[caption.after].start_s if caption.after < len(words) else inf
        shown_s = caption.end_s - words[caption.first].start_s
        if layout.line_break(caption.first, caption.after) is None:
            yield number, "lines"
        if shown_s < rules.min_s - 1e-5:
            yield number, "short"
        if shown_s > rules.max_s + 1e-5:
            yield number, "long"
        if layout.chars(caption.first, caption.after) > rules.max_chars_per_s * shown_s + 1e-3:
            yield number, "fast"
        if next_s - caption.end_s < rules.gap_s - 1e-5:
            yield number, "gap"


def plain_layout(text: str, words: Sequence[Word]) -> Layout:
    return Layout(text, words, [Break.WORD] * len(words), line_rules(RULES))


class Tally:
    """Captions, and how many of them miss a bound."""

    def __init__(self) -> None:
        self.captions = 0
        self.outside = 0
        self.missed: Counter[str] = Counter()

    def add(self, text: str, words: Sequence[Word], segments: Sequence[Segment]) -> None:
        cut, first = [], 0
        for segment in segments:
            cut.append(Caption(first, first + len(segment.words), segment.end_s))
            first += len(segment.words)
        found = [*faults(words, plain_layout(text, words), cut)]
        self.captions += len(cut)
        self.outside += len({number for number, _ in found})
        self.missed.update(bound for _, bound in found)

    def row(self, name: str) -> tuple[str, ...]:
        share = 100 * (1 - self.outside / max(self.captions, 1))
        missed = ", ".join(f"{bound} {number}" for bound, number in self.missed.most_common())
        return name, str(self.captions), f"{share:.2f} %", missed or "-"


def random_texts(texts: int, seed: int = 0) -> Iterator[tuple[str, list[Word]]]:
    random = Random(seed)
    for _ in tqdm(range(texts), unit="text", leave=False, disable=None):  # None: on a terminal only
        yield recording(random)


def demo_set() -> Iterator[tuple[str, list[Word]]]:
    """The texts of the demo set with the true times of their words."""
    for entry in manifest.read(manifest.DEMO_SET):
        units = [(word.text, word.start_s, word.end_s) for word in entry.words]
        if units:
            yield entry.text, place(entry.text, units, start_s=0.0, end_s=units[-1][2])


def measure(recordings: Iterable[tuple[str, list[Word]]]) -> dict[str, Tally]:
    """The tallies of sentences and of captions, over the same texts."""
    tallies = {"sentences": Tally(), "captions": Tally()}
    for text, words in recordings:
        for name, rules in (("sentences", None), ("captions", RULES)):
            tallies[name].add(text, words, merge(text, words, SegmentRules(captions=rules)))
    return tallies


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="caption_bounds", description="Captions of random texts within their bounds.")
    parser.add_argument("texts", type=count, nargs="?", default=1000, help="how many; default: 1000, in seconds")
    texts = parser.parse_args(argv).texts
    rows: list[tuple[str, ...]] = [("segments", "number", "within all bounds", "bounds missed")]
    for where, recordings in (("demo set", demo_set()), (f"{texts} random texts", random_texts(texts))):
        rows += [tally.row(f"{where}, {name}") for name, tally in measure(recordings).items()]
    print(aligned(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
