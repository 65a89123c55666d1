"""LongBench's, RULER's and MRCR's formulas against hand-computed values and their definitions, and their files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glyph_rt.errors import InputError
from glyph_rt.evaluate import Question
from glyph_rt.evaluate.longbench import FORMULAS, LongBench, classification, code_similarity, count, qa_f1, qa_f1_zh, retrieval, rouge_l
from glyph_rt.evaluate.mrcr import Mrcr, grade
from glyph_rt.evaluate.ruler import FAMILIES, RulerFile, RulerStyle, match_all, match_part

WORDS = st.lists(st.sampled_from(["red", "green", "blue", "pump"]), max_size=6).map(" ".join)


def test_qa_f1_by_hand() -> None:
    assert qa_f1("The pump, a blue one!", "blue pump") == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))  # 2 of 3 words, 2 of 2
    assert qa_f1("An answer", "the answer") == 1
    assert qa_f1("no", "yes") == 0 == qa_f1("", "yes")


@given(WORDS, WORDS)
def test_qa_f1_is_the_harmonic_mean_of_precision_and_recall(found: str, truth: str) -> None:
    left = truth.split()
    same = 0
    for word in found.split():
        if word in left:
            left.remove(word)
            same += 1
    precision, recall = same / max(1, len(found.split())), same / max(1, len(truth.split()))
    assert qa_f1(found, truth) == pytest.approx(2 * precision * recall / (precision + recall) if same else 0)


def test_rouge_l_by_hand() -> None:
    """The longest common subsequence of "police kill the gunman" and "police killed the gunman" has 3 words of 4 on both sides."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75, abs=1e-6)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5, abs=1e-6)
    assert rouge_l("", "something") == 0 == rouge_l("...", "something")


def test_classification_by_hand() -> None:
    classes = ("City", "Other city", "Country", "Date")
    assert classification("It is a Date.", "Date", classes) == 1
    assert classification("City or Country", "City", classes) == 0.5
    assert classification("none", "City", classes) == 0
    assert classification("It names an Other city", "Other city", ("city", "Other city")) == 1  # "city" is part of the right name
    # As published: after a name was taken out, the next is not looked at, so one of two parts stays and halves the score.
    assert classification("abc", "abc", ("a", "b", "abc")) == 0.5


def test_count_and_retrieval_by_hand() -> None:
    assert count("There are 7, or 8, or 7 of them", "7") == pytest.approx(2 / 3)
    assert count("many", "7") == 0
    assert retrieval("Paragraph 12", "Paragraph 12") == 1
    assert retrieval("Paragraph 12 or 3", "Paragraph 3") == 0.5
    assert retrieval("段落4", "段落4") == 1


def test_code_similarity_by_hand() -> None:
    assert code_similarity("\nreturn x\nmore", "return x") == 1
    assert code_similarity("# comment\n```\nreturn y", "return x") == 0.88  # 14 of 16 characters in common: 87.5, rounded to even
    assert code_similarity("# only a comment", "return x") == 0


def test_every_english_and_code_data_set_scores_its_own_answer_full() -> None:
    for name, formula in FORMULAS.items():
        if formula.__name__.endswith("_zh"):
            continue
        answer = "Paragraph 7" if "retrieval" in name else "7" if name == "passage_count" else "blue pump"
        assert formula(answer, answer, ("blue pump", "red")) == pytest.approx(1, abs=1e-6), name


def write(file: Path, *rows: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return file


def test_a_longbench_file_becomes_documents_and_questions(tmp_path: Path) -> None:
    row = {"context": "Long text.", "input": "Who?", "answers": ["Ann", "Ann Lee"], "length": 4100, "all_classes": None, "_id": "x1"}
    task = LongBench(write(tmp_path / "hotpotqa_e.jsonl", row), tmp_path)
    write(tmp_path / "dataset2prompt.json", {"hotpotqa": "Read.\n\n{context}\n\nNow answer.\nQuestion: {input}\nAnswer:"})
    write(tmp_path / "dataset2maxlen.json", {"hotpotqa": 32})
    (question,) = task.questions()
    assert (question.text, question.id, question.max_new_tokens, question.axes) == ("Long text.", "x1", 32, {"words": "4-8k"})
    assert question.question == "Read.\n\nNow answer.\nQuestion: Who?\nAnswer:"
    assert task.scores(question, "ann lee")["score"].value == 1
    assert task.name == "longbench/hotpotqa_e"


def test_few_shot_data_sets_score_the_first_line_only(tmp_path: Path) -> None:
    row = {"context": "c", "input": "q", "answers": ["Date"], "all_classes": ["Date", "City"]}
    task = LongBench(write(tmp_path / "trec.jsonl", row))
    (question,) = task.questions()
    assert task.scores(question, "Date\nQuestion: next\nCity")["score"].value == 1


def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1: no 'context'"):
        list(LongBench(write(tmp_path / "qasper.jsonl", {"prompt": "x"})).questions())
    with pytest.raises(InputError, match="LongBench has no data set 'mine'"):
        list(LongBench(write(tmp_path / "mine.jsonl", {})).questions())
    with pytest.raises(InputError, match=r"--config"):
        list(LongBench(write(tmp_path / "gov_report.jsonl", {"context": "c", "input": "", "answers": ["a"]})).questions())
    (tmp_path / "qasper.jsonl").write_text("{}\nnot json\n")
    with pytest.raises(InputError, match="row 1"):
        list(LongBench(tmp_path / "qasper.jsonl").questions())
    (tmp_path / "qasper.jsonl").write_text("not json\n")
    with pytest.raises(InputError, match=r"line 1: not JSON"):
        list(LongBench(tmp_path / "qasper.jsonl").questions())


def test_ruler_matches_by_hand() -> None:
    assert match_all("They are 123 and ABC", ("123", "abc", "9")) == pytest.approx(2 / 3)
    assert match_part("It was Paris.", ("paris", "Lyon")) == 1 and match_part("Rome", ("paris",)) == 0


def test_a_ruler_file_asks_with_its_last_line(tmp_path: Path) -> None:
    row = {"index": 0, "input": "Hidden things.\nThe text.\nWhat is the number?", "outputs": ["12", "34"], "length": 4096}
    task = RulerFile(write(tmp_path / "niah_multivalue" / "validation.jsonl", row))
    (question,) = task.questions()
    assert (task.name, question.text, question.question) == ("ruler/niah_multivalue", "Hidden things.\nThe text.", "What is the number?")
    assert task.scores(question, "12\x07 only")["match"].value == 0.5
    part = RulerFile(write(tmp_path / "qa_1" / "validation.jsonl", row))
    assert part.scores(question, "34")["match"].value == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_hides_all_that_it_asks_for(family: str) -> None:
    task = RulerStyle(family, (600, 2000), repeats=2)
    questions = list(task.questions())
    assert [q.id for q in questions] == ["600/0", "600/1", "2000/0", "2000/1"] and questions == list(task.questions())
    for question in questions:
        assert len(question.accepted) == len(set(question.accepted))
        assert all(wanted in question.text for wanted in question.accepted)
        assert task.scores(question, question.expected)["match"].value == 1
        assert task.scores(question, "")["match"].value == 0
    assert len(questions[-1].text) > 1800


def test_common_words_are_the_most_common() -> None:
    (question,) = RulerStyle("common words", (3000,), repeats=1).questions()
    words = question.text.split()[1::2]
    often = sorted(set(words), key=words.count, reverse=True)[: len(question.accepted)]
    assert set(often) == set(question.accepted)


def test_mrcr_grades_by_hand() -> None:
    assert grade("XYabcd", "XYabcd", "XY") == 1
    assert grade("XYabxx", "XYabcd", "XY") == 0.5  # 2 * 2 of 8
    assert grade("abcd", "XYabcd", "XY") == 0  # without its prefix


def test_an_mrcr_row_is_a_conversation_and_its_last_request(tmp_path: Path) -> None:
    messages = [
        {"role": "user", "content": "write a poem"},
        {"role": "assistant", "content": "Roses"},
        {"role": "user", "content": "Prepend Q1 to the 1st poem."},
    ]
    row = {"prompt": json.dumps(messages), "answer": "Q1Roses", "random_string_to_prepend": "Q1", "n_needles": 2}
    task = Mrcr(write(tmp_path / "two.jsonl", row))
    (question,) = task.questions()
    assert question.text == "User: write a poem\n\nAssistant: Roses" and question.question == "Prepend Q1 to the 1st poem."
    assert task.scores(question, "Q1Roses")["ratio"].value == 1
    assert isinstance(question, Question) and question.axes == {"needles": 2}


def test_what_a_file_needs_and_is_not_there_is_said(tmp_path: Path) -> None:
    """A Parquet file without pyarrow, or one that is none; Chinese without jieba."""
    (tmp_path / "two.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match=r"pyarrow|cannot be read as Parquet"):
        list(Mrcr(tmp_path / "two.parquet").questions())
    if find_spec("jieba") is None:
        with pytest.raises(InputError, match="pip install jieba"):
            qa_f1_zh("合同金额", "合同金额")
    else:
        assert qa_f1_zh("合同金额。", "合同金额") == 1
