"""Batch: questions about many documents, from JSON lines to JSON lines, each answered once whatever interrupts it.

A line of the input is an object with an `id`, a `file` or a `text`, a `question`, and, if need be, `options`. Its line in the output
has the same `id` and an answer, or an `error`. Lines of the output come document by document, not in the order of the input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from glyph_rt.errors import GlyphError, InputError
from glyph_rt.identity import digest
from glyph_rt.language import Sampling
from glyph_rt.lines import LineFile
from glyph_rt.long import Inquiry, LongAnswer, LongText, ReadingRules, Strategy
from glyph_rt.memory.limits import MIB
from glyph_rt.quotes import Quoting
from glyph_rt.runtime import Runtime
from glyph_rt.texts import read_text

TOGETHER = 64  # questions on one document that share the reading of its parts
USAGE = ("pages", "prompt_tokens", "cached_tokens", "completion_tokens")  # of all that was read and answered for a line
OTHER_BYTES = MIB  # of a line, beside its text

Told = Callable[[str, int, int], None]  # name, lines done, lines


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LineOptions(_Part):
    """How one answer is drawn, as `Sampling` has it, and how the text is read for it."""

    strategy: Strategy | None = None  # None: the batch's own
    quotes: Quoting | None = None  # likewise
    max_new_tokens: StrictInt | None = None
    temperature: float = 0.0
    seed: StrictInt = 0
    draft: bool = True
    top_k: StrictInt = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[StrictStr, ...] = ()
    json_schema: dict[str, Any] | None = None
    regex: StrictStr | None = None

    def sampling(self) -> Sampling:
        """Raises OptionError for values out of range, and for two forms."""
        schema = None if self.json_schema is None else json.dumps(self.json_schema)
        return Sampling.of(**self.model_dump(exclude={"strategy", "quotes"}) | {"json_schema": schema})


class Line(_Part):
    """A line of the input."""

    id: StrictStr | StrictInt | None = None  # None: "line-N", by its number
    file: StrictStr | None = Field(default=None, min_length=1)  # beside the input file, if it is no absolute path
    text: StrictStr | None = None
    question: StrictStr
    options: LineOptions = LineOptions()

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.file is None) == (self.text is None):
            raise ValueError("a line has a file or a text")
        return self

    @property
    def document(self) -> str:
        """Names the document: equal for lines about one."""
        return (
            digest("batch-document/1", "file", self.file) if self.file is not None else digest("batch-document/1", "text", self.text or "")
        )


@dataclass(frozen=True)
class Task:
    """What a batch does with every line. subject: what decides the answers besides the lines, such as the model."""

    runtime: Runtime
    subject: Mapping[str, str]
    system: str = ""
    rules: ReadingRules = field(default_factory=ReadingRules)
    strategy: Strategy = Strategy.AUTO
    quotes: Quoting = Quoting.MARK


@dataclass(frozen=True)
class Outcome:
    """Lines of the output: with an answer, with an error, and of these the ones that an earlier run wrote."""

    answered: int
    failed: int
    earlier: int


def run(task: Task, source: Path, target: Path, told: Told | None = None) -> Outcome:
    """Answer every line of `source` that `target` has no line for. Documents are read one at a time, once for all their lines.

    Holds some hundred bytes for every line, and one document. Errors of a line, or of its document, are its outcome. Raises InputError
    for files that do not belong together, or ids that stand twice, and OutputError when the target cannot be written: what is written
    stays, and running again goes on from there.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror})") from None
    with stream, LineFile(target) as lines:
        index = _Index(stream, digest("batch/1", json.dumps(dict(task.subject), sort_keys=True)), task.runtime.limits.text_bytes)
        done = index.scan(source, lines)
        earlier, failed, count = len(done), sum(done.values()), index.lines
        answered = earlier - failed
        for entries in index.left.values():
            for entry, outcome in _answers(task, index, entries, source.parent):
                lines.append(_line(entry, outcome))
                answered, failed = answered + isinstance(outcome, LongAnswer), failed + isinstance(outcome, GlyphError)
                if told is not None:
                    told("batch", answered + failed, count)
    return Outcome(answered, failed, earlier)


@dataclass(frozen=True)
class _Entry:
    """A line of the input that is not answered yet. name: its id, as the output has it. mark: of all that its answer depends on."""

    number: int
    offset: int
    name: str | int
    mark: str


class _Index:
    """Where the lines of the input are, by document. Keeps none of their texts."""

    def __init__(self, stream: BinaryIO, subject: str, text_bytes: int) -> None:
        self._stream, self._subject = stream, subject
        self._most = 6 * text_bytes + OTHER_BYTES  # JSON may spell a byte as six
        self.left: dict[str, list[_Entry]] = {}
        self.lines = 0

    def scan(self, source: Path, output: LineFile) -> dict[str, bool]:
        """Find all lines, and those that the output has: their ids, and whether they are errors."""
        marks, failed = self._stored(output)
        numbers: dict[str, int] = {}
        for number, offset, raw in self._raw():
            line, name = _parse(raw, number)
            if (first := numbers.setdefault(str(name), number)) != number:
                raise InputError(f"{source}: the id {name!r} stands on lines {first} and {number}; ids must differ")
            entry = _Entry(number, offset, name, digest("batch-line/1", self._subject, raw)[:16])
            stored = marks.get(str(name))
            if stored is None:
                self.left.setdefault(line.document if isinstance(line, Line) else "", []).append(entry)
            elif stored != entry.mark:
                raise InputError(f"{output.file} answers another line or model under the id {name!r}; choose another output file")
        if strange := next((name for name in marks if name not in numbers), None):
            raise InputError(f"{output.file} has a line for the id {strange!r}, which {source} has not; choose another output file")
        self.lines = len(numbers)
        return failed

    def line(self, entry: _Entry) -> Line | GlyphError:
        """The line itself, read again."""
        self._stream.seek(entry.offset)
        return _parse(self._stream.readline(self._most + 1), entry.number)[0]

    def _raw(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, from 1, offset and bytes of every line that is not blank; of one that is too long no more than shows that."""
        self._stream.seek(0)
        number = offset = 0
        while raw := self._stream.readline(self._most + 1):
            number += 1
            rest = raw
            while len(rest) > self._most and not rest.endswith(b"\n"):
                rest = self._stream.readline(self._most + 1)
            if raw.strip():
                yield number, offset, raw
            offset = self._stream.tell()

    @staticmethod
    def _stored(output: LineFile) -> tuple[dict[str, str], dict[str, bool]]:
        marks, failed = {}, {}
        try:
            for line in output.read():
                marks[str(line["id"])], failed[str(line["id"])] = line["mark"], "error" in line
        except (ValueError, KeyError) as error:
            raise InputError(f"{output.file} is not the output of a batch ({error}); choose another output file") from None
        return marks, failed


def _answers(task: Task, index: _Index, entries: Sequence[_Entry], folder: Path) -> Iterator[tuple[_Entry, LongAnswer | GlyphError]]:
    """Outcomes of the lines about one document."""
    subject: LongText | GlyphError | None = None
    try:
        for first in range(0, len(entries), TOGETHER):
            asked: list[tuple[_Entry, Inquiry]] = []
            for entry in entries[first : first + TOGETHER]:
                line = index.line(entry)
                if isinstance(line, Line):
                    subject = subject or _open(task, line, folder)
                inquiry = line if isinstance(line, GlyphError) else subject if isinstance(subject, GlyphError) else _inquiry(task, line)
                if isinstance(inquiry, Inquiry):
                    asked.append((entry, inquiry))
                else:
                    yield entry, inquiry
            if isinstance(subject, LongText):
                for number, outcome in subject.ask_all([inquiry for _, inquiry in asked]):
                    yield asked[number][0], outcome
    finally:
        if isinstance(subject, LongText):
            subject.close()


def _open(task: Task, line: Line, folder: Path) -> LongText | GlyphError:
    limit = task.runtime.limits.text_bytes
    try:
        text = line.text if line.text is not None else read_text(str(folder.absolute() / str(line.file)), limit)
        return LongText(task.runtime, text, system=task.system, rules=task.rules)
    except GlyphError as error:
        return error


def _inquiry(task: Task, line: Line) -> Inquiry | GlyphError:
    try:
        options = line.options
        return Inquiry(line.question, options.sampling(), options.strategy or task.strategy, options.quotes or task.quotes)
    except GlyphError as error:
        return error


def _parse(raw: bytes, number: int) -> tuple[Line | GlyphError, str | int]:
    """The line, or what is wrong with it; and its id, if it has one."""
    name: str | int = f"line-{number}"
    try:
        data = json.loads(raw)
        if isinstance(data, dict) and type(data.get("id")) in (str, int):
            name = data["id"]
        return Line.model_validate(data), name
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the line"
        return InputError(f"line {number}: {key}: {problem['msg'].removeprefix('Value error, ')}"), name
    except (ValueError, RecursionError) as error:
        return InputError(f"line {number} is no JSON, or too long ({error})"), name


def _line(entry: _Entry, outcome: LongAnswer | GlyphError) -> dict[str, Any]:
    """A line of the output."""
    if isinstance(outcome, GlyphError):
        told: dict[str, Any] = {"error": {"type": type(outcome).__name__, "message": str(outcome)}}
    else:
        usage = outcome.cost.usage
        told = outcome.to_json() | {"usage": {name: getattr(usage, name) for name in USAGE}}
    return {"id": entry.name, **told, "mark": entry.mark}
