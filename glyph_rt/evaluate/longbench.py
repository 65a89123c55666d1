"""LongBench (arXiv:2308.14508): its files, prompts and formulas, so that its tables can be run again on pages.

The formulas follow metrics.py and eval.py of https://github.com/THUDM/LongBench, quirks included, since the published tables have them.
Rows of its files: `context`, `input`, `answers` (any is right; the best counts), `length`, `dataset`, `all_classes`, `_id`.
Prompts and answer lengths are LongBench's own config files, read from where the user has them.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glyph_rt.errors import InputError
from glyph_rt.evaluate.files import rows
from glyph_rt.evaluate.task import Question, Score

_CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)


def qa_f1(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """F1 of the words that prediction and truth share, without case, punctuation and articles."""
    return _f1(_normalised(prediction).split(), _normalised(truth).split())


def qa_f1_zh(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The same for Chinese: words as jieba cuts them."""
    return _f1(*([word for word in map(_normalised_zh, _jieba(text)) if word] for text in (prediction, truth)))


def rouge_l(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """ROUGE-L's F of the `rouge` package, which the tables were made with: over sentences, each word counted once. 0 where it fails."""
    from rouge import Rouge  # of the `eval` extra

    try:
        return float(Rouge(metrics=["rouge-l"]).get_scores([prediction], [truth], avg=True)["rouge-l"]["f"])
    except (ValueError, RecursionError):  # nothing to compare, or too long for its recursion
        return 0.0


def rouge_l_zh(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The same for Chinese: words as jieba cuts them."""
    return rouge_l(" ".join(_jieba(prediction)), " ".join(_jieba(truth)))


def classification(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """1 by the number of class names in the prediction, if the right one is among them; names that are part of it do not count."""
    found = [name for name in classes if name in prediction]
    for name in found:  # as published: what follows a removed name is skipped
        if name in truth and name != truth:
            found.remove(name)
    return 1 / len(found) if truth in found else 0.0


def count(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The share of the prediction's numbers that are the right one."""
    numbers = re.findall(r"\d+", prediction)
    return numbers.count(str(truth)) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """`count` of the number of the right paragraph, which the truth names as "Paragraph 7" or 段落7."""
    named = re.findall(r"(?:Paragraph |段落)(\d+)", truth)
    return count(prediction, named[0]) if named else 0.0


def code_similarity(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """fuzzywuzzy's ratio (in whole percent) of the truth and the first line that holds no backtick, hash or double slash."""
    from rapidfuzz import fuzz  # its ratio is what fuzzywuzzy takes from python-Levenshtein

    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    return round(fuzz.ratio(line, truth)) / 100 if line and truth else 0.0


Formula = Callable[[str, str, Sequence[str]], float]
FORMULAS: dict[str, Formula] = {
    **dict.fromkeys(("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"), qa_f1),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), rouge_l),
    **dict.fromkeys(("dureader", "vcsum"), rouge_l_zh),
    **dict.fromkeys(("trec", "lsht"), classification),
    **dict.fromkeys(("passage_retrieval_en", "passage_retrieval_zh"), retrieval),
    **dict.fromkeys(("lcc", "repobench-p"), code_similarity),
    "multifieldqa_zh": qa_f1_zh,
    "passage_count": count,
}
FIRST_LINE_ONLY = ("trec", "triviaqa", "samsum", "lsht")  # few-shot data sets, where models go on with the next example
MEASURE = "score"


@dataclass(frozen=True)
class LongBench:
    """One of LongBench's files, named as its data set is: `hotpotqa.jsonl`, or `hotpotqa_e.jsonl` of LongBench-E.

    `config` is its folder with dataset2prompt.json and, if there, dataset2maxlen.json. The context is the document; what the prompt
    says around it is the question. Without `config` the question is the row's input alone, which is not what the tables were made with.
    """

    file: Path
    config: Path | None = None

    @property
    def name(self) -> str:
        return f"longbench/{self.file.stem}"

    @property
    def data_set(self) -> str:
        name = self.file.stem.removesuffix("_e")
        if name not in FORMULAS:
            raise InputError(f"{self.file}: LongBench has no data set {name!r}; it has {', '.join(FORMULAS)}")
        return name

    def questions(self) -> Iterator[Question]:
        name = self.data_set
        prompt = self._setting("dataset2prompt.json") or "{context}{input}"
        before, after = prompt.split("{context}")
        longest = self._setting("dataset2maxlen.json") or 128
        for number, row in enumerate(rows(self.file, ("context", "input", "answers")), 1):
            asked = "\n\n".join(part for part in (before.strip(), after.replace("{input}", row["input"]).strip()) if part)
            if not asked:
                raise InputError(
                    f"{self.file}, row {number}: {name} asks in its prompt; give the folder of dataset2prompt.json as --config"
                )
            answers = row["answers"] or [""]
            yield Question(
                row["context"],
                asked,
                answers[0],
                id=str(row.get("_id", number)),
                accepted=tuple(answers),
                choices=tuple(row.get("all_classes") or ()),
                axes={"words": _length_class(int(row.get("length") or len(row["context"].split())))},
                max_new_tokens=int(longest),
            )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        if self.data_set in FIRST_LINE_ONLY:
            answer = answer.lstrip("\n").split("\n")[0]
        formula = FORMULAS[self.data_set]
        return {MEASURE: Score(max(formula(answer, right, question.choices) for right in question.accepted))}

    def _setting(self, file: str) -> Any:
        """What a config file says of this data set; None where there is none."""
        if self.config is None or not (self.config / file).is_file():
            return None
        try:
            return json.loads((self.config / file).read_text(encoding="utf-8")).get(self.data_set)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.config / file} cannot be read ({error})") from None


def _length_class(words: int) -> str:
    """As LongBench-E reports them."""
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"


def _f1(prediction: Sequence[str], truth: Sequence[str]) -> float:
    same = sum((Counter(prediction) & Counter(truth)).values())
    return 2 * same / (len(prediction) + len(truth)) if same else 0.0


def _normalised(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _normalised_zh(text: str) -> str:
    """Lower case, no punctuation, no spaces."""
    return "".join("".join(c for c in text.lower() if c not in string.punctuation + _CHINESE_PUNCTUATION).split())


def _jieba(text: str) -> list[str]:
    try:
        import jieba
    except ImportError:
        raise InputError("LongBench's Chinese data sets need jieba, which cuts words: pip install jieba") from None
    return list(jieba.cut(text, cut_all=False))
