"""Words between words: law 3 for any words that have it, any lines, and any room."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.transcript.lyrics.placing import confined, filled, gaps, line_segments
from backend.transcript.lyrics.sung_lines import known_text
from backend.transcript.words import Word, spread

LINES = st.lists(
    st.sampled_from(["one two", "— three, four!", "♪", "...", "五六七", "(eight) nine"]), min_size=2, max_size=8
)


@settings(max_examples=300)
@given(LINES, st.data())
def test_all_text_gets_words_in_its_lines_in_order(rows: list[str], data: st.DataObject) -> None:
    known = known_text("\n".join(rows))
    heard = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))
    times = sorted(
        data.draw(st.lists(st.floats(0.0, 9.0), min_size=2 * len(rows), max_size=2 * len(rows), unique=True))
    )
    words: list[Word] = []
    for number in sorted(heard):
        line = known.lines[number]
        inside = spread(known.text[line.begin : line.end], [(times[2 * number], times[2 * number + 1] + 1e-3)])
        if words and inside[0].start_s < words[-1].end_s:
            continue
        words += [word.shifted(line.begin) for word in inside]
    words, missing = gaps(known.text, words, 10.0)
    fillings = [
        (gap, [w.shifted(gap.begin) for w in spread(known.text[gap.begin : gap.end], [(gap.start_s, gap.end_s)])])
        for gap in missing
    ]
    result = confined(known.text, filled(words, fillings), known.lines)
    segments = line_segments(result, known.lines)
    assert [known.text[s.begin : s.end] for s in segments] == [row.strip() for row in rows]
    assert all(segment.words for segment in segments)
    assert all(segment.begin <= word.begin < word.end <= segment.end for segment in segments for word in segment.words)
    assert "".join(known.text[w.begin : w.end] for w in result).replace(" ", "") == "".join(rows).replace(" ", "")
    edges = [edge for word in result for edge in (word.start_s, word.end_s)]
    assert edges == sorted(edges)
    assert all(word.end_s > word.start_s for word in result)
    assert 0 <= edges[0] <= edges[-1] <= 10.0
