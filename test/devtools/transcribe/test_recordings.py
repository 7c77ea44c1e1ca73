"""Which recordings are transcribed, and where each result goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from devtools.transcribe.recordings import BadArgument, format_of, jobs, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    talks = tmp_path / "my talks"
    talks.mkdir()
    for name in ["a.wav", "b.MP3", "b.flac", "notes.txt", "it's one.m4a"]:
        (talks / name).write_bytes(b"x")
    return talks


def targets(audio: str, out: str, name: str = "srt") -> dict[str, str]:
    return {job.audio.name: str(job.out) for job in jobs(audio, out, name)}


def test_one_recording_goes_to_the_terminal_or_into_its_file(folder: Path, tmp_path: Path) -> None:
    audio = str(folder / "it's one.m4a")
    assert [job.out for job in jobs(audio, "", "srt")] == [None]
    assert targets(audio, str(tmp_path / "x.srt")) == {"it's one.m4a": str(tmp_path / "x.srt")}
    assert targets(audio, f"{tmp_path}/new/") == {"it's one.m4a": str(tmp_path / "new" / "it's one.srt")}
    assert targets(audio, str(tmp_path)) == {"it's one.m4a": str(tmp_path / "it's one.srt")}


def test_a_folders_recordings_have_their_results_beside_them(folder: Path) -> None:
    assert targets(str(folder), "") == {
        "a.wav": str(folder / "a.srt"),
        "b.MP3": str(folder / "b.MP3.srt"),  # beside b.flac
        "b.flac": str(folder / "b.flac.srt"),
        "it's one.m4a": str(folder / "it's one.srt"),
    }


def test_several_are_words_of_a_shell(folder: Path, tmp_path: Path) -> None:
    audio = f"'{folder}/a.wav' \"{folder}/b.flac\" '{folder}'"
    assert list(targets(audio, str(tmp_path / "out"), "verbose_json").values()) == [
        str(tmp_path / "out" / name) for name in ("a.json", "b.flac.json", "b.MP3.json", "it's one.json")
    ]


def test_a_result_never_overwrites_a_recording(tmp_path: Path) -> None:
    for name in ("talk.vtt.wav", "talk.wav"):
        (tmp_path / name).write_bytes(b"x")
    assert len(set(targets(str(tmp_path), "", "vtt").values())) == 2


@pytest.mark.parametrize(
    ("audio", "out", "cause"),
    [
        ("nowhere.wav", "", "AUDIO: there is no file nowhere.wav"),
        ("{folder}", "{folder}/a.wav", "is a file, and there are 4 recordings; name a folder"),
        ("{folder}/a.wav", "{folder}/none/x.srt", "OUT: there is no folder"),
        ("{empty}", "", "holds no recording"),
        (
            "{folder}/a.wav",
            "{folder}/../my talks/a.wav",
            "OUT: a.wav is a recording by its name; name",
        ),
        (
            "{folder}/notes.txt",
            "{folder}/notes.txt",
            "is a recording of AUDIO, which the result would",
        ),
        ("{folder}/notes.txt", "{folder}/link.srt", "is a recording of AUDIO"),
        ("{folder}/a.wav", "/dev/null", "OUT: /dev/null is no regular file"),
        ("{folder}/a.wav", "results", "OUT: results has no suffix; write results/ for a folder"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path, audio: str, out: str, cause: str) -> None:
    (tmp_path / "empty").mkdir()
    (folder / "link.srt").hardlink_to(folder / "notes.txt")
    with pytest.raises(BadArgument, match=cause):
        jobs(audio.format(folder=folder, empty=tmp_path / "empty"), out.format(folder=folder), "srt")


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"x")
    with pytest.raises(BadArgument, match=r"two recordings would write a\.wav\.srt"):
        jobs(f"{tmp_path}/one {tmp_path}/two", str(tmp_path / "out"), "srt")


@pytest.mark.parametrize(
    ("name", "out", "is_terminal", "expected"),
    [
        ("", "", True, "timed"), ("", "", False, "verbose_json"), ("srt", "", True, "srt"), ("", "x.vtt", True, "vtt"),
        ("", "x.json", True, "verbose_json"), ("lrc", "x.doc", True, "lrc"), ("lrc", "x.srt", False, "lrc"),
        ("", "x.SRT", True, "srt"), ("SRT", "", True, "srt"), ("", "x.y/", True, "verbose_json"),
    ],
)  # fmt: skip
def test_the_format_follows_the_file(name: str, out: str, is_terminal: bool, expected: str) -> None:
    assert format_of(name, out, is_terminal=is_terminal) == expected


@pytest.mark.parametrize(
    ("name", "out", "cause"),
    [
        ("", "x.doc", r"OUT: \.doc is no format; add FORMAT=\.\.\."),
        ("karaoke", "", r"FORMAT: karaoke is none of .*; did you mean vtt_karaoke\?"),
        ("vt", "", r"did you mean vtt\?"),
        ("xyz", "", "vtt_karaoke$"),
    ],
)
def test_a_format_that_there_is_not_is_refused(name: str, out: str, cause: str) -> None:
    with pytest.raises(BadArgument, match=cause):
        format_of(name, out, is_terminal=True)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "new" / "a.srt", "ä\n")
    assert (tmp_path / "new" / "a.srt").read_bytes() == "ä\n".encode()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "new" / "a.srt", "other")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.srt"]
    assert (tmp_path / "new" / "a.srt").read_text(encoding="utf-8") == "ä\n"
