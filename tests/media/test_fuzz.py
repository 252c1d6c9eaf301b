"""A bounded run of the fuzzer with a fixed seed; `make fuzz` is the long one."""

import json
from pathlib import Path

import pytest

from specsem.media import DecoderPool
from specsem.media import pool as pool_module
from tests import fuzzing
from tests.media.bombs import BOMBS

SEED = 4


def test_damaged_clips_harm_nothing(tmp_path: Path) -> None:
    with fuzzing.service(tmp_path) as server:
        report = fuzzing.fuzz(SEED, files=500, keep=tmp_path / "findings", server=server)
    assert report.findings == [], json.dumps(vars(report), indent=2)
    assert report.files == 500
    assert report.outcomes["ok"] > 100, "hardly a file got past the header: this would show nothing"
    assert report.outcomes["undecodable"] > 50


@pytest.mark.parametrize("number", range(4))  # each way through the pool
def test_times_that_begin_again_keep_the_promises(number: int, tmp_path: Path) -> None:
    (again,) = (bomb for bomb in BOMBS if bomb.name == "times that begin again")
    (tmp_path / "video").write_bytes(again.content())
    with DecoderPool(workers=1) as pool:
        assert fuzzing.through_the_pool(pool, tmp_path / "video", number) == ("ok", "")


@pytest.mark.parametrize(("word", "wrong"), [("crash", "died"), ("raise", "raised")])
def test_what_it_finds_it_keeps(
    word: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_WORKER_MODULE", "tests.media.misbehaving")
    monkeypatch.setattr(fuzzing, "damaged", lambda _seed, _number: word.encode() + b" " * 20)
    report = fuzzing.fuzz(SEED, files=1, keep=tmp_path / "findings")
    assert report.findings == [f"{wrong}-{SEED}-0"]
    assert (tmp_path / "findings" / report.findings[0]).read_bytes().startswith(word.encode())


@pytest.mark.parametrize("name", fuzzing.SEEDS)
def test_a_clip_is_valid_and_its_structure_is_understood(name: str) -> None:
    form = fuzzing.SEEDS[name][3]
    content = fuzzing.clip(name)
    if form is not None:
        tree = form.parse(content)
        again = b"".join(map(form.dump, tree))
        assert [node.kind for node in form.parse(again)] == [node.kind for node in tree]
        assert form is fuzzing.EBML or again == content
    assert fuzzing.damaged(SEED, 1) == fuzzing.damaged(SEED, 1)
