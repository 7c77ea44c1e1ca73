"""Manifests that are right, and what is said about those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devtools.eval.__main__ import main
from devtools.eval.hypotheses import Word
from devtools.eval.manifest import DEMO_SET, ManifestError, read


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").touch()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.mp3").touch()
    return tmp_path / "manifest.jsonl"


def test_paths_count_from_the_manifest_and_ids_come_from_them(manifest: Path) -> None:
    manifest.write_text(
        '{"audio": "a.wav", "text": "Hello.", "language": "German", "words": [["Hello", 0, 0.5]]}\n\n'
        '{"audio": "deep/b.mp3", "text": "", "language": "", "id": "silence"}\n'
        '{"audio": "deep/b.mp3", "text": "", "language": ""}'
    )
    first, second, third = read(manifest)
    assert (first.id, first.audio, first.language) == ("a", manifest.parent / "a.wav", "de")
    assert first.words == (Word("Hello", 0.0, 0.5),)
    assert (second.id, second.is_speech, second.words) == ("silence", False, ())
    assert third.id == "deep/b"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"audio": "a.wav", ', "line 2: this is not JSON"),
        ("[1]", "line 2: a line must be a JSON object"),
        ('{"audio": "c.wav", "text": "", "language": ""}', "there is no file"),
        ('{"audio": "a.wav", "language": "en"}', '"text" must be there and be a string'),
        ('{"audio": "a.wav", "text": 5, "language": "en"}', '"text" must be there and be a string'),
        ('{"audio": "", "text": "", "language": ""}', '"audio" must not be empty'),
        (
            '{"audio": "a.wav", "text": "", "language": "", "speaker": "x"}',
            'the key "speaker" is not known; known keys: audio',
        ),
        ('{"audio": "a.wav", "text": "x", "language": "xx"}', '"language" must be one of ar, cs'),
        ('{"audio": "a.wav", "text": "x", "language": ""}', '"text" and "language" must both be given'),
        ('{"audio": "a.wav", "text": "", "language": "en"}', '"text" and "language" must both be given'),
        ('{"audio": "a.wav", "text": "x", "language": "en", "words": {}}', '"words" must be a list'),
        (
            '{"audio": "a.wav", "text": "x", "language": "en", "words": [["x", 1]]}',
            '["x", 1] is not [text, start, end]',
        ),
        ('{"audio": "a.wav", "text": "x", "language": "en", "words": [["x", 2, 1]]}', "0 ≤ start ≤ end"),
        ('{"audio": "a.wav", "text": "x", "language": "en", "words": [["x", 0, NaN]]}', "0 ≤ start ≤ end"),
        ('{"audio": "a.wav", "text": "x", "language": "en", "words": [["x", 0, true]]}', "0 ≤ start ≤ end"),
        ('{"audio": "a.wav", "text": "x", "language": "en", "words": [["x", 2, 3], ["y", 1, 2]]}', '"y" is not'),
        ('{"audio": "deep", "text": "", "language": ""}', 'deep is a folder; "audio" names one recording'),
        ('{"audio": "deep/b.mp3", "text": "", "language": ""}', 'the id "deep/b" is there already'),
    ],
)
def test_what_is_wrong_is_named_with_its_line(manifest: Path, line: str, said: str) -> None:
    manifest.write_text('{"audio": "deep/b.mp3", "text": "", "language": ""}\n' + line)
    with pytest.raises(ManifestError, match="line 2") as caught:
        read(manifest)
    assert said in str(caught.value)


def test_a_manifest_that_is_missing_empty_or_no_text_is_an_error(manifest: Path) -> None:
    with pytest.raises(ManifestError, match="there is no such file; give a file of JSON lines"):
        read(manifest)
    with pytest.raises(ManifestError, match="is a folder; give a file of JSON lines"):
        read(manifest.parent)
    manifest.write_text("\n")
    with pytest.raises(ManifestError, match="holds no recordings"):
        read(manifest)
    manifest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="UTF-8"):
        read(manifest)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--manifest", "nowhere.jsonl"], "eval: MANIFEST: nowhere.jsonl: there is no such file"),
        (["--model", "nowhere"], "eval: MODEL: nowhere is neither a folder here nor a hub id"),
        (["--aligner", "nowhere"], "eval: ALIGNER: nowhere is neither a folder here nor a hub id"),
    ],
)
def test_bad_input_ends_with_exit_code_1_and_the_cause(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_the_demo_set_is_whole() -> None:
    entries = read(Path(DEMO_SET))
    languages = [e.language for e in entries if e.id.startswith("set/")]
    assert (languages.count("en"), languages.count("zh")) == (8, 4)
    assert any(not e.is_speech for e in entries)
    assert max(e.text.count(".") for e in entries) >= 40  # the long one
    for entry in entries:
        beside = entry.audio.with_suffix(".json")
        if beside.exists():
            assert json.loads(beside.read_text(encoding="utf-8"))["text"] == entry.text
        assert bool(entry.words) == entry.is_speech
