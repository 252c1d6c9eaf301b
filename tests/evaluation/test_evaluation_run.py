"""``specsem evaluate`` from a manifest to its reports; what was scored is not scored again."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from specsem.errors import SpecSemError
from specsem.evaluation import files, run
from specsem.evaluation.files import read_scores, write_scores
from specsem.evaluation.run import evaluate
from specsem.synthetic import write_clip

CONDITIONS = ("as-is", "level", "h264-crf28")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 12 small clips: 2 generators and 4 cameras; one clip is no video."""
    folder = tmp_path_factory.mktemp("pack")
    lines = []
    for number in range(12):
        generated = number % 2 == 0
        path = folder / f"{number:02}.mp4"
        write_clip(path, width=160, height=120, seconds=0.7, seed=number, crf=20 + 10 * generated)
        source = f"generator-{number % 4}" if generated else f"camera-{number % 8}<b>"
        row = {"path": path.name, "label": "generated" if generated else "real", "source": source}
        lines.append(row | {"split": "val", "sha256": f"{number:064x}"})
    (folder / "11.mp4").write_bytes(b"no video")
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture(scope="module")
def done(pack: Path, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that an evaluation has written. Read only."""
    out = tmp_path_factory.mktemp("out")
    evaluate(
        [pack],
        out,
        model=str(tiny_models / "specsem-compact"),
        conditions=CONDITIONS,
        device="cpu",
        processes=1,
        rounds=50,
    )
    return out


def test_the_report_holds_what_it_promises(done: Path) -> None:
    report = json.loads((done / "report.json").read_text())
    assert report["schema"] == 1
    assert list(report["conditions"]) == list(CONDITIONS)
    assert report["data"]["n_real"] == 6
    assert report["data"]["manifests"][0]["file"] == "manifest.jsonl"
    assert report["protocol"] == report["protocol"] | {"kind": "one model", "calibration": "shipped"}
    assert report["model"]["name"] == "specsem-compact"
    assert "manifest.jsonl" in report["command"]
    assert str(done) not in json.dumps(report)
    for name in CONDITIONS:
        row = report["conditions"][name]
        assert (row["n_generated"], row["n_real"], row["not_scored"]) == (6, 5, 1)
        assert sum(row["errors"].values()) == 1
        assert set(row["interval95"]) >= {"auc", "ap", "ece", "brier", "macro_auc", "tpr_at_0.1pct_fpr"}
        assert row["leaks"]["metadata"]["auc"] is not None
        assert row["curves"]["roc"][-1]["tpr"] == 1.0
    assert {"width", "fps", "n_frames"} <= set(report["conditions"]["level"]["leaks"]["metadata"]["constant"])
    assert [h["condition"] for h in report["headlines"]] == ["as-is", "level"]
    assert all("alone" in h["audit"] for h in report["headlines"])
    assert len(report["worst"]) == 11


class Page(HTMLParser):
    """What a page would fetch, its ids, and whether its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [str(found[key]) for key in ("src", "href", "xlink:href") if key in found]
        self.ids += [str(found["id"])] if "id" in found else []
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_file_that_fetches_nothing(done: Path) -> None:
    text = (done / "report.html").read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in parsed.links)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "<script" not in text
    assert "url(http" not in text
    assert text.count("<svg ") == 6
    assert text.count('role="img"') == 6
    in_reach = re.findall(r'class="[^"]*scroll[^"]*"[^>]*>\s*<table', text)
    assert len(in_reach) == text.count("<table")  # a wide table scrolls alone, not the page
    assert "camera-1<b>" not in text  # names are escaped
    assert re.search(r'<img src="data:[^"]+" alt="Frame 1 of 3 of \d\d.mp4">', text)
    for colour in re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", text):
        pytest.fail(f"{colour} does not follow the page")


def test_what_was_scored_is_not_scored_again(
    done: Path, pack: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specsem.registry import read_model
    from specsem.training.data import read_manifest

    record, items = read_model(tiny_models / "specsem-compact"), read_manifest(pack)
    (kept,) = (done / "scores").iterdir()
    half = tmp_path / "half"
    half.mkdir()
    text = (kept / "as-is.jsonl").read_text()
    (half / "as-is.jsonl").write_text(text[: len(text) // 2])  # as a kill leaves it

    scored: list[int] = []
    real = files.score_items

    def counted(missing: list[object], *args: object, **options: object) -> object:
        scored.append(len(missing))
        return real(missing, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "score_items", counted)
    whole = files.score_conditions(items, ["as-is"], kept, model=record, device="cpu")
    assert scored == []
    again = files.score_conditions(items, ["as-is"], half, model=record, device="cpu")
    assert len(scored) == 1
    assert 0 < scored[0] < 12
    assert [s.item for s in again] == [s.item for s in whole] == items
    assert [s.logit for s in again if s.windows] == pytest.approx([s.logit for s in whole if s.windows])


def test_another_model_or_manifest_is_scored_anew(pack: Path, tiny_models: Path, tmp_path: Path) -> None:
    from specsem.registry import read_model

    record = read_model(tiny_models / "specsem-compact")
    other = tmp_path / "manifest.jsonl"
    other.write_text(pack.read_text() + "\n")
    names = {
        run._identity(record, [pack]),
        run._identity(record, [other]),
        run._identity(replace(record, sha256="0"), [pack]),
    }
    assert len(names) == 3


def test_saved_scores_of_folds_are_judged_as_such(
    done: Path, pack: Path, tiny_models: Path, tmp_path: Path
) -> None:
    scores = read_scores(done / "scores.jsonl", root=pack.parent)
    assert len(scores) == 36
    rng = np.random.default_rng(0)
    folds = [
        replace(
            s,
            fold=str(int(s.item.path.stem) // 2 % 2),
            windows=[replace(w, logit=float(rng.normal(s.item.generated))) for w in s.windows],
        )
        for s in scores
    ]
    write_scores(tmp_path / "folds.jsonl", folds)
    report = evaluate(
        [pack],
        tmp_path / "out",
        model=str(tiny_models / "specsem-compact"),
        scores=[tmp_path / "folds.jsonl"],
        rounds=20,
    )
    assert report["protocol"]["kind"] == "cross-validation"
    assert report["protocol"]["calibration"] == "cross-fitted"
    assert "2 fold models that saw neither" in report["protocol"]["says"]
    assert set(report["conditions"]["as-is"]["folds"]) == {"0", "1"}
    assert "Each fold" in (tmp_path / "out" / "report.html").read_text()
    assert not (tmp_path / "out" / "scores").exists()


def test_what_cannot_be_judged_is_refused(pack: Path, tiny_models: Path, tmp_path: Path) -> None:
    model = str(tiny_models / "specsem-compact")
    with pytest.raises(SpecSemError, match="sepia"):
        evaluate([pack], tmp_path, model=model, conditions=["sepia"])
    with pytest.raises(SpecSemError, match="both labels"):
        evaluate([pack], tmp_path, model=model, split="train")
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(SpecSemError, match="no clip"):
        evaluate([pack], tmp_path, model=model, scores=[tmp_path / "none.jsonl"])


def test_the_template_travels_in_the_wheel() -> None:
    import tomllib

    root = Path(__file__).parents[2]
    assert (root / "specsem" / "evaluation" / "report.html.jinja").is_file()
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "specsem" in wheel["only-include"]
    assert "exclude" not in wheel
