"""OpenAI's MRCR (multi-round co-reference resolution): which of several like requests in a long conversation is meant?

Files of https://huggingface.co/datasets/openai/mrcr as they are (Parquet), or the same rows as JSON lines. A row has `prompt`, a
JSON list of chat messages whose last one asks; `answer`; `random_string_to_prepend`, which the answer must begin with; `n_needles`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from glyph_rt.evaluate.files import rows
from glyph_rt.evaluate.task import Question, Score


def grade(response: str, answer: str, prefix: str) -> float:
    """The dataset card's grade: 0 unless the response begins with the prefix; else difflib's ratio of what follows it on both sides."""
    if not response.startswith(prefix):
        return 0.0
    return SequenceMatcher(None, response.removeprefix(prefix), answer.removeprefix(prefix)).ratio()


@dataclass(frozen=True)
class Mrcr:
    """A file of MRCR rows. All messages but the last are the document; the last is the question."""

    file: Path
    name: str = "mrcr"

    def questions(self) -> Iterator[Question]:
        for number, row in enumerate(rows(self.file, ("prompt", "answer", "random_string_to_prepend"))):
            *conversation, asked = json.loads(row["prompt"]) if isinstance(row["prompt"], str) else row["prompt"]
            yield Question(
                "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in conversation),
                asked["content"],
                row["answer"],
                id=str(number),
                choices=(row["random_string_to_prepend"],),
                axes={"needles": row.get("n_needles", 0)},
                max_new_tokens=len(row["answer"]) + 64,
            )

    def scores(self, question: Question, answer: str) -> dict[str, Score]:
        return {"ratio": Score(grade(answer, question.expected, question.choices[0]))}
