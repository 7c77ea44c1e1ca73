"""Small folders in the form of AISHELL-1 and Common Voice."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.eval.corpora.recordings_of import recordings_of
from devtools.eval.manifest import ManifestError

HEAD = "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\tsegment"


@pytest.fixture
def aishell(tmp_path: Path) -> Path:
    for split, speaker, number in (("train", "0002", "0122"), ("test", "0764", "0121"), ("test", "0764", "0199"),
                                   ("test", "0765", "0300")):  # fmt: skip
        folder = tmp_path / f"data_aishell/wav/{split}/S{speaker}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"BAC009S{speaker}W{number}.wav").touch()
    transcript = tmp_path / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    transcript.parent.mkdir()
    transcript.write_text(
        "BAC009S0002W0122 而 对 楼市 成交 抑制 作用 最 大 的 限 购\n"
        "BAC009S0764W0121 甚至 出现 交易 几乎 停滞 的 情况\n"
        "BAC009S0765W0300 用 open ai 的 T 恤\n"  # and W0199 has no line
    )
    return transcript


def test_aishell_is_read_split_by_split(aishell: Path) -> None:
    first, second = recordings_of(aishell)
    assert (first.id, first.language, first.words) == ("BAC009S0764W0121", "zh", ())
    assert first.text == "甚至出现交易几乎停滞的情况"
    assert first.audio == aishell.parent.parent / "wav/test/S0764/BAC009S0764W0121.wav"
    assert second.text == "用open ai的T恤"
    assert [entry.id for entry in recordings_of(aishell, split="train")] == ["BAC009S0002W0122"]


def test_what_is_wrong_with_aishell_is_said(aishell: Path) -> None:
    with pytest.raises(ManifestError, match=r"no folder .*dev; SPLIT may be train, test"):
        recordings_of(aishell, split="dev")
    (aishell.parent.parent / "wav/dev").mkdir()
    (aishell.parent.parent / "wav/S0002.tar.gz").touch()
    with pytest.raises(ManifestError, match=r"unpack the \.tar\.gz of each speaker"):
        recordings_of(aishell, split="dev")
    for line, said in (("BAC009S0764W0999", "has no text"), ("BAC009S0764W0121 又", "is there already")):
        damaged = aishell.with_name("damaged.txt")
        damaged.write_text(aishell.read_text() + line + "\n")
        with pytest.raises(ManifestError, match=f"line 4.*{said}"):
            recordings_of(damaged)


def common_voice(folder: Path, *lines: str, head: str = HEAD, locale: str = "de") -> Path:
    clips = folder / locale / "clips"
    clips.mkdir(parents=True)
    for number in (1, 2, 3):
        (clips / f"common_voice_{number}.mp3").touch()
    path = folder / locale / "test.tsv"
    path.write_text("\n".join([head, *lines, ""]), encoding="utf-8")
    return path


def test_common_voice_is_read_with_its_quotation_marks(tmp_path: Path) -> None:
    path = common_voice(
        tmp_path,
        'abc\tcommon_voice_1.mp3\t1\t"Ja", sagte er.\t2\tde\t',
        "abc\tcommon_voice_2\t2\tZwei\x85 Wörter\u2028hier.\t2\tde\t",  # the first versions had no suffix
    )
    first, second = recordings_of(path)
    assert (first.id, first.text, first.language) == ("common_voice_1", '"Ja", sagte er.', "de")
    assert first.audio == tmp_path / "de/clips/common_voice_1.mp3"
    assert second.audio.name == "common_voice_2.mp3"


@pytest.mark.parametrize(
    ("locale", "code"), [("zh-CN", "zh"), ("zh-TW", "zh"), ("zh-HK", "yue"), ("sv-SE", "sv"), ("pt", "pt")]
)
def test_a_locale_is_a_language(tmp_path: Path, locale: str, code: str) -> None:
    with_column = common_voice(tmp_path / "a", f"x\tcommon_voice_1.mp3\t1\tWort\t2\t{locale}\t")
    without = common_voice(tmp_path / "b", "common_voice_1.mp3\tWort", head="path\tsentence", locale=locale)
    assert {recordings_of(path)[0].language for path in (with_column, without)} == {code}


def test_a_locale_that_no_model_knows_needs_a_language(tmp_path: Path) -> None:
    path = common_voice(tmp_path, "x\tcommon_voice_1.mp3\t1\tvorto\t2\teo\t")
    with pytest.raises(ManifestError, match=r'line 2.*locale "eo".*LANGUAGE may be'):
        recordings_of(path)
    assert recordings_of(path, language="Italian")[0].language == "it"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x\tcommon_voice_9.mp3\t1\tWort\t2\tde\t", "there is no file"),
        ("x\tcommon_voice_1.mp3\t1\t ?! \t2\tde\t", '"sentence" is empty'),
        ("x\tcommon_voice_1.mp3\t1\tWort", "4 columns, the first line has 7"),
        ("x\t\t1\tWort\t2\tde\t", "there is no file"),
        ("x\tcommon_voice_2.mp3\t1\tWort\t2\tde\t", "is there already"),
    ],
)
def test_what_is_wrong_with_common_voice_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = common_voice(tmp_path, "x\tcommon_voice_2.mp3\t1\tWort\t2\tde\t", line)
    with pytest.raises(ManifestError, match="line 3") as caught:
        recordings_of(path)
    assert said in str(caught.value)


def test_a_list_without_recordings_or_of_another_kind_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no recordings below its first line"):
        recordings_of(common_voice(tmp_path))
    other = tmp_path / "other.tsv"
    other.write_text("file\ttext\na.wav\tWort\n")
    with pytest.raises(ManifestError, match="none of JSON lines, Common Voice"):
        recordings_of(other)


def test_a_limit_takes_recordings_from_the_whole_list(aishell: Path, tmp_path: Path) -> None:
    lines = [f"x\tcommon_voice_{number}.mp3\t1\tWort\t2\tde\t" for number in (1, 2, 3)]
    path = common_voice(tmp_path, *lines)
    assert [entry.id[-1] for entry in recordings_of(path, limit=2)] == ["1", "2"]
    assert len(recordings_of(path, limit=9)) == 3
    assert [entry.id for entry in recordings_of(aishell, limit=1)] == ["BAC009S0764W0121"]
