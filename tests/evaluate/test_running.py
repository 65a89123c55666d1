"""Records that survive interruptions, runs that go on from them, and reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glyph_rt import Runtime, evaluate
from glyph_rt.errors import InputError
from glyph_rt.evaluate import Bar, Question, Record, Result, Score
from glyph_rt.evaluate.needle import NeedleGrid
from glyph_rt.evaluate.run import TOO_LONG
from glyph_rt.evaluate.suites import SUITES, Exact, Options

SUBJECT = {"model": "m", "style": "s"}


def result(id: str, value: float = 1.0, task: str = "t", **axes: float) -> Result:
    return Result(task, id, "answer", "expected", {"exact": Score(value)}, axes)


def test_a_record_is_taken_up_where_it_broke_off(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    with Record(file, SUBJECT) as record:
        for id in "ab":
            record.add(result(id, pages=2))
    file.write_bytes(file.read_bytes() + b'{"task": "t", "id": "c", "ans')  # the line that a crash cut off
    with Record(file, SUBJECT) as record:
        assert list(record.results.values()) == [result("a", pages=2), result("b", pages=2)]
        record.add(result("c"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines[0] == SUBJECT and [line["id"] for line in lines[1:]] == ["a", "b", "c"]


def test_a_record_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    with Record(file, SUBJECT) as record:
        record.add(result("a"))
    before = file.read_bytes()
    with pytest.raises(InputError, match="record of another model: m, not n"):
        Record(file, {**SUBJECT, "model": "n"})
    assert file.read_bytes() == before
    other = tmp_path / "notes.txt"
    other.write_text("my notes\n")
    with pytest.raises(InputError, match="not the record of an evaluation"):
        Record(other, SUBJECT)
    assert other.read_text() == "my notes\n"


def test_two_runs_do_not_write_one_record(tmp_path: Path) -> None:
    with Record(tmp_path / "r.jsonl", SUBJECT), pytest.raises(InputError, match="another process"):
        Record(tmp_path / "r.jsonl", SUBJECT)
    Record(tmp_path / "r.jsonl", SUBJECT).close()


@dataclass(frozen=True)
class Stop(Exception):
    """Stands for whatever ends a run in the middle."""


def test_a_run_that_broke_off_asks_only_what_is_left(tmp_path: Path, reader_runtime: Runtime) -> None:
    grid = NeedleGrid((200,), (0.0, 1.0), repeats=2)

    def stop_after_three(task: str, done: int, total: int) -> None:
        assert (task, total) == ("needle", 4)
        if done == 3:
            raise Stop

    with Record(tmp_path / "r.jsonl", SUBJECT) as record, pytest.raises(Stop):
        evaluate.run(reader_runtime, [grid], record, stop_after_three)
    seen: list[int] = []
    with Record(tmp_path / "r.jsonl", SUBJECT) as record:
        assert len(record.results) == 3
        evaluate.run(reader_runtime, [grid], record, lambda task, done, total: seen.append(done))
        assert seen == [4] and [r.id for r in record.results.values()] == [q.id for q in grid.questions()]
    whole = Record(None, SUBJECT)
    evaluate.run(reader_runtime, [grid], whole)
    assert whole.results == record.results
    assert reader_runtime.arena.used == 0, "every document was given back"


def test_what_the_context_cannot_hold_is_wrong_and_the_rest_goes_on(reader_runtime: Runtime) -> None:
    long = Question("word " * 200_000, "What is the value of x?", "y", id="long")
    short = Question("x: yellow\n", "What is the value of x?", "yellow", id="short")
    record = Record(None, SUBJECT)
    evaluate.run(reader_runtime, [Exact("both", lambda: [long, short])], record)
    answers = {id: r.answer for (_, id), r in record.results.items()}
    assert answers["long"] == TOO_LONG and answers["short"] != TOO_LONG


def test_figures_are_told_by_task_measure_and_axis() -> None:
    results = [result(str(i), float(i % 4 > 0), pages=1 + i % 2, depth=i / 100) for i in range(80)]
    overall, one, two = evaluate.figures(results)
    assert (overall.count, overall.interval.share, overall.place) == (80, 0.75, {})
    assert (one.place, one.interval.share, two.place, two.interval.share) == ({"pages": 1}, 0.5, {"pages": 2}, 1.0)
    told = evaluate.table([overall, one, two], [Bar("t", "exact", 0.8, "values"), Bar("u", "exact", 0.1, "others")])
    assert "75.0% (64.5% to 83.2%)  of 80   MISSED: values >= 80.0%" in told and "by pages: 1 50.0%, 2 100.0%" in told
    assert "reached" in evaluate.table([overall], [Bar("t", "exact", 0.7, "values")])


def test_a_report_has_figures_curves_and_heatmaps(tmp_path: Path) -> None:
    results = [result(f"{p}/{d}/{i}", float(i > d), task="a <b>", pages=p, depth=d) for p in (1, 2) for d in (0.0, 0.5) for i in range(3)]
    evaluate.write(tmp_path, results, SUBJECT, [Bar("a <b>", "exact", 0.5, "values")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bars"] == {"a <b>, exact": {"floor": 0.5, "reached": True}}
    assert {tuple(f["place"].items()) for f in report["figures"]} == {
        (),
        (("pages", 1),),
        (("pages", 2),),
        (("depth", 0.0),),
        (("depth", 0.5),),
    }
    plots = {file.name: ElementTree.parse(file).getroot() for file in tmp_path.glob("*.svg")}
    assert set(plots) == {"a--b--exact-by-pages.svg", "a--b--exact-by-depth.svg", "a--b--exact-by-pages-and-depth.svg"}
    cells = [e for e in plots["a--b--exact-by-pages-and-depth.svg"].iter("{http://www.w3.org/2000/svg}rect") if len(e)]
    assert len(cells) == 4 and {cell[0].text for cell in cells} == {
        f"pages {p}, depth {d}: 66.7% (20.8% to 93.9%)" for p in (1, 2) for d in ("0", "0.5")
    }


def tasks_of(suite: str, runtime: Runtime, **options: object) -> Iterator[tuple[str, list[Question]]]:
    for task in SUITES[suite].make(Options(runtime.typesetter, size=4, lengths=(300,), **options)):  # type: ignore[arg-type]
        yield task.name, list(task.questions())


@pytest.mark.parametrize("suite", ["reader", "needle", "ruler", "ocr"])
def test_suites_name_every_question_once_and_always_alike(suite: str, reader_runtime: Runtime) -> None:
    first = list(tasks_of(suite, reader_runtime))
    assert first == list(tasks_of(suite, reader_runtime))
    assert len({name for name, _ in first}) == len(first)
    for _, questions in first:
        assert questions and len({q.id for q in questions}) == len(questions)
    assert {bar.task for bar in SUITES[suite].bars} <= {name for name, _ in first}


@pytest.mark.parametrize("suite", ["longbench", "mrcr"])
def test_suites_of_others_data_ask_for_it(suite: str, reader_runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data"):
        list(tasks_of(suite, reader_runtime))
    with pytest.raises(InputError, match="no "):
        list(tasks_of(suite, reader_runtime, data=tmp_path))


def test_held_out_questions_hold_their_answers(reader_runtime: Runtime) -> None:
    for name, questions in tasks_of("reader", reader_runtime):
        for q in questions:
            if name == "not in the document":
                assert q.expected == "not in the document"
            elif name == "comparisons":
                figures, key = q.expected.rsplit(": ", 1)
                assert key in q.question and all(part in q.text for part in (key, *figures.split(" and ")))
            elif name == "counts":
                assert 1 <= int(q.expected) <= 6
            elif not name.startswith("transcripts"):
                assert q.expected in q.text


def test_pages_of_the_users_own_text_are_transcribed_one_by_one(reader_runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("".join(f"Line {number} of a note.\n" for number in range(25)))
    ((_, questions),) = tasks_of("ocr", reader_runtime, data=tmp_path)
    assert [q.question for q in questions] == [f"Transcribe page {n}." for n in range(1, questions[0].pages + 1)]
    assert "\n".join(q.expected for q in questions) == (tmp_path / "note.txt").read_text().strip()
    (tmp_path / "note.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"note\.txt"):
        list(tasks_of("ocr", reader_runtime, data=tmp_path))
