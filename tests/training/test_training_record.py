# SPDX-License-Identifier: Apache-2.0
"""What outlives the workspace beside an adapter: metrics, answers, findings in the data, and a report of it all."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.registry.adapters import DESCRIPTION
from tuneyard.main import cli
from tuneyard_api.pod_contract import ADAPTER_FILES
from tuneyard_api.registry import VERSION_FILE, published_digest
from tuneyard_sync.sources import FolderSource
from tuneyard_trainer.record import samples as reading
from tuneyard_trainer.record.curve import draw_curve, evenly
from tuneyard_trainer.record.intervals import of_mean, of_share
from tuneyard_trainer.record.samples import read_samples
from tuneyard_trainer.record.text import fenced, inline, readable
from tuneyard_trainer.workspace import layout

MARKUP = '<script>alert("x")</script> <img src=x onerror=alert(1)> & ``` | [a](javascript:b) \x1b[31m'
VOID = {"meta", "br", "img", "input", "hr", "link"}
MIB = 1 << 20


class Page(HTMLParser):
    """The elements of a page, which must be nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes = [], [], []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def write_samples(workspace: Path, samples: list[dict]) -> None:
    path = workspace / layout.SAMPLES
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))


def answer(number: int, text: str = "", tuned: str = "right") -> dict:
    return {
        "prompt": f"prompt {number} {text}",
        "reference": "right",
        "base": f"wrong {text}",
        "tuned": tuned,
        "rougeLBase": 0.0,
        "rougeLTuned": float(tuned == "right"),
    }


@pytest.fixture
def published(trained, pods, tmp_path):
    """Publishes a trained workspace; returns the folder of its version."""

    def build(samples=(), metrics=(), **changes):
        job = trained(**changes)
        if samples:
            write_samples(pods.workspace, list(samples))
        if metrics:
            (pods.workspace / layout.METRICS).write_text("".join(json.dumps(each) + "\n" for each in metrics))
        code, result = pods.run("publish", job)
        assert code == 0, result.failure
        return tmp_path / "registry/demo-adapter"

    return build


def test_what_was_measured_is_kept_beside_the_adapter(published, pods):
    folder = published([answer(n) for n in range(3)])
    for kept, of in (
        ("metrics.jsonl", "metrics.jsonl"),
        ("samples.jsonl", "evaluation/samples.jsonl"),
        ("prepare-report.json", "prepare-report.json"),
    ):
        assert (folder / kept).read_bytes() == (pods.workspace / of).read_bytes()


def test_readers_of_the_adapter_see_no_more_than_before(published, tmp_path):
    """adapter-sync copies two files; what goes with a model leaves the record out; and the version stays whole."""
    folder = published([answer(1)])
    beside = {path.name for path in folder.iterdir() if path.is_file()} - {*ADAPTER_FILES, VERSION_FILE}
    assert beside == {*DESCRIPTION, "loss.png"}
    assert not [name for name in beside if layout.is_model_file(name)]
    source = FolderSource(folder.parent)
    version = source.pointers()["demo-adapter"]
    copy = tmp_path / "copy"
    copy.mkdir()
    source.fetch(version, copy)
    assert sorted(path.name for path in copy.iterdir()) == sorted(ADAPTER_FILES)
    assert published_digest(copy, version.files) == version.digest == layout.tuned_digest(folder)
    assert layout.tuned_files(folder) == sorted(ADAPTER_FILES)


def test_the_report_says_what_was_trained_on_what_and_how_it_went(published):
    folder = published(
        [answer(n, tuned="right" if n % 2 else "no") for n in range(8)],
        facts={"validation_loss": 1.75, "best_step": 3, "peak_memory_bytes": 3 << 29, "stopped_early": True},
        method="lora",
        lora={"rank": 24},
    )
    version = json.loads((folder / "version.json").read_text())
    prepared = json.loads((folder / "prepare-report.json").read_text())
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    shown = " ".join(" ".join(Page(page).texts[tag]) for tag in ("td", "code", "pre", "p", "th", "title"))
    for said in (
        version["digest"],
        prepared["planDigest"],
        "4, stopped early",
        "1.7500, of step 3",
        "1.500 GiB",
        "held out for validation",
        "training 10 s, checkpointing 1 s",
        "vllm serve ./base --enable-lora --max-lora-rank 32 --lora-modules demo-adapter=./demo-adapter",
        "get finetunejob demo -o yaml",
        "0.5000 (0.2152 to 0.7848)",  # four of eight by Wilson
    ):
        assert said in shown, said
        assert said in text.replace("\\", ""), said


def test_the_report_needs_no_other_file_and_runs_nothing(published):
    folder = published([answer(1)])
    page = Page((folder / "report.html").read_text())
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in {"src", "href", "action", "srcset"}]
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("content", policy) in page.attributes
    assert "url(" not in " ".join(page.texts["style"])
    assert "@import" not in " ".join(page.texts["style"])
    assert "svg" in page.tags


def test_markup_in_records_answers_and_warnings_means_nothing_in_the_report(published, pods, monkeypatch):
    monkeypatch.setattr("tuneyard_trainer.stages.prepare.notes_of", lambda _: [f"noted {MARKUP}"])
    folder = published(
        [answer(1, MARKUP, MARKUP)],
        records=[{"prompt": f"{MARKUP} {n}", "completion": f" {MARKUP}"} for n in range(8)],
        facts={"warnings": (f"something about {MARKUP}",)},
        training={"maxSequenceLength": 250},
    )
    html = (folder / "report.html").read_text()
    page = Page(html)
    assert not {"script", "img", "a"} & set(page.tags)
    shown = readable(MARKUP)
    assert any(shown in text for text in page.texts["pre"]), "the answer is shown as it is"
    assert any(shown in text for text in page.texts["p"]), "the warning is shown as it is"
    for content in (html, (folder / "report.md").read_text()):
        assert "\x1b" not in content
    text = (folder / "report.md").read_text()
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "something about" in outside
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(javascript", outside)
    said = (inline(f"something about {MARKUP}"), inline(f"noted {MARKUP}"))
    card = (folder / "README.md").read_text()
    for part in said:
        assert part in outside
        outside = outside.replace(part, "")
    assert "alert" not in outside
    assert said[1] in card
    assert "alert" not in card.replace(said[1], "")


def test_a_browser_shows_the_report_and_runs_nothing(published, tmp_path):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium on this machine")
    folder = published(
        [answer(n, MARKUP, MARKUP) for n in range(3)],
        metrics=[{"step": step, "loss": 3 / step} for step in range(1, 50)],
    )
    picture = tmp_path / "report.png"
    shown = subprocess.run(
        [
            *(
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                f"--user-data-dir={tmp_path / 'profile'}",
            ),
            *(
                "--window-size=1000,2000",
                f"--screenshot={picture}",
                "--dump-dom",
                f"file://{folder}/report.html",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    page = Page(shown)
    assert not {"script", "img", "a"} & set(page.tags)
    assert page.tags.count("section") == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000, "an empty page is far smaller"


def test_the_command_prints_the_report_or_writes_its_page(published, tmp_path):
    folder = published([answer(1)])
    run = CliRunner()
    shown = run.invoke(cli, ["report", str(folder)])
    assert (shown.exit_code, shown.stdout_bytes) == (0, (folder / "report.md").read_bytes())
    page = tmp_path / "page.html"
    assert run.invoke(cli, ["report", str(folder), "--html", str(page)]).exit_code == 0
    assert page.read_bytes() == (folder / "report.html").read_bytes()
    wrong = run.invoke(cli, ["report", str(folder.parent)])
    assert wrong.exit_code == 1
    assert "there is no report; try the folder of a published name" in wrong.output


def test_long_runs_are_thinned_and_the_report_says_so(published, monkeypatch):
    monkeypatch.setattr("tuneyard_trainer.record.keep.MAX_METRICS", 100)
    monkeypatch.setattr(reading, "KEPT_BYTES", 20_000)
    folder = published(
        [answer(n, "long " * 400) for n in range(40)],
        metrics=[{"step": step, "loss": 3 - step / 500} for step in range(1, 1001)],
    )
    kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (len(kept), kept[0]["step"], kept[-1]["step"]) == (100, 1, 1000)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [each["prompt"].split()[1] for each in samples] == ["0", "1", "2", "3"]
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "100 of its 1000 lines, evenly spread" in text
        assert "The first 12 of 40 prompts" in text
        assert "has the first 4 whole" in text
        assert "more characters)" in text
        assert len(text.encode()) < MIB // 4


def test_without_prompts_and_held_out_records_the_report_says_so(published):
    folder = published(facts={"evaluation": None}, dataset={"validationFraction": 0.0})
    assert not (folder / "samples.jsonl").exists()
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "Nothing was held out, so nothing was measured." in text
        assert "No prompts were asked." in text


def test_a_key_in_a_url_is_not_repeated(published, trained, pods, monkeypatch):
    from tuneyard_api.pod_contract import ResolvedSource
    from tuneyard_trainer.record import report

    source = ResolvedSource.model_validate(
        {"http": {"url": "https://data.example.com/train.jsonl?sig=geheim", "sha256": "a" * 64}}
    )
    assert "geheim" not in report._source(source)
    job = trained()
    job = job.model_copy(update={"dataset": job.dataset.model_copy(update={"training": source})})
    assert "geheim" not in report._settings(job)
    assert "https://data.example.com/train.jsonl" in report._settings(job)


def test_the_same_findings_give_the_same_report(published, pods, trained, tmp_path):
    folder = published([answer(n) for n in range(5)])
    before = (folder / "report.html").read_bytes()
    (pods.workspace / "results/publish.json").unlink()
    job = trained(registryPath=str(tmp_path / "second"))
    assert pods.run("publish", job)[0] == 0
    after = (tmp_path / "second/demo-adapter/report.html").read_text()

    def without_plan(text: str) -> str:
        return re.sub(r"[0-9a-f]{64}|/[^\s\"<&]*(registry|second)\b", "", text)

    assert without_plan(after) == without_plan(before.decode())


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(0, 8, 0.0, 0.3244), (4, 8, 0.2152, 0.7848), (8, 8, 0.6756, 1.0)]
)
def test_shares_have_wilson_intervals(hits, of, low, high):
    interval = of_share(hits, of)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)


def test_means_have_bootstrap_intervals_that_hold_the_mean():
    values = [n / 99 for n in range(100)]
    interval = of_mean(values)
    # The standard error of the mean of 100 even values is 0.0292.
    assert (interval.low, interval.high) == pytest.approx(
        (0.5 - 1.96 * 0.0292, 0.5 + 1.96 * 0.0292), abs=0.01
    )
    assert of_mean(values) == interval
    assert of_mean([1.0]) is None
    assert of_mean([0.5, 0.5, 0.5]) is None, "nothing differs, so nothing is known of how means would"
    assert of_share(0, 0) is None


def test_the_curve_is_inside_its_picture_and_each_series_has_its_line():
    lines = [{"step": n, "loss": 5 / n} for n in range(1, 2000)] + [{"step": 1000, "validationLoss": 2.0}]
    page = Page(draw_curve(lines))
    numbers = dict(page.attributes)
    points = [tuple(map(float, each.split(","))) for each in dict(page.attributes)["points"].split()]
    assert numbers["class"]
    assert page.tags.count("polyline") == 2
    assert page.tags.count("circle") == 1
    assert all(0 <= x <= 720 and 0 <= y <= 320 for x, y in points)
    assert draw_curve([]) is None
    assert draw_curve([{"step": 1, "loss": float("nan")}]) is None


@pytest.mark.parametrize(
    "losses",
    [[2.0], [2.0, 2.0], [0.0], [1e-9, 1e9], [-1.0, 1.0]],
    ids=["one", "same", "zero", "wide", "negative"],
)
def test_any_losses_can_be_drawn(losses):
    page = Page(draw_curve([{"step": at + 1, "loss": loss} for at, loss in enumerate(losses)]))
    assert "nan" not in str(page.attributes)
    assert page.tags.count("text") < 40


def test_evenly_keeps_both_ends():
    assert evenly(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert evenly([1, 2], 5) == [1, 2]


def test_a_fence_is_longer_than_any_in_the_text():
    assert fenced("a ```` b").startswith("`````text\n")
    assert (
        readable("a\x00\x1b\ud800b\tc\n")
        == "a\N{REPLACEMENT CHARACTER}" + "\N{REPLACEMENT CHARACTER}" * 2 + "b\tc\n"
    )


def test_answers_are_read_up_to_a_torn_line(tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(answer(0)) + "\n" + '{"prompt": "a"}\n' + json.dumps(answer(1)) + "\n")
    assert read_samples(path).total == 1
    assert read_samples(tmp_path / "none").total == 0


def test_without_the_answers_the_scores_have_no_intervals(published):
    folder = published()
    text = (folder / "report.md").read_text()
    assert "| exact match | 0.5000 | 0.5000 | +0.0000 |" in text
    assert "No prompts were asked." not in text
    assert "The answers were not in the workspace." in text


def test_a_sample_that_is_too_long_ends_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 500)
    path = tmp_path / "samples.jsonl"
    path.write_text(
        "".join(json.dumps(answer(n, "x" * size)) + "\n" for n, size in ((0, 9), (1, 900), (2, 9)))
    )
    samples = read_samples(path)
    assert (samples.total, len(samples.kept), len(samples.shown)) == (3, 1, 3)
