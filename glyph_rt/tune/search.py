"""The search: what to try next, and what was tried. Optuna's NSGA-II (Deb and others 2002) over a journal that outlives the process.

A search goes on where it was stopped, and as if it had not been: what is drawn at random for a trial depends on the seed and on how many
trials there were before, not on a generator that was lost.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, BinaryIO, Self

import optuna
from optuna.samplers import NSGAIISampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from glyph_rt.errors import EncoderError, InputError, NonFiniteError, StyleError
from glyph_rt.tune.front import UNREADABLE, Finding, front
from glyph_rt.tune.space import Point, Space, Value
from glyph_rt.typeset import Style

JOURNAL, STUDY = "search.journal", "styles"
REFERENCE, NEIGHBOUR, EVOLVED, CRITIC = "reference", "neighbour", "nsga-ii", "critic"  # who chose a style to try
NEIGHBOURS = 48
MOST_REFUSALS = 100  # in a row: by then everything near has been tried

Measure = Callable[[Style, Sequence[Finding]], Finding]


@dataclass(frozen=True)
class Tried:
    """A style that was tried, who chose it, and what was found. `note`: why, in a critic's words."""

    number: int
    point: Point
    style: Style
    origin: str
    finding: Finding
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """A point that was not tried, and the rule that forbids it."""

    number: int
    point: Point
    origin: str
    reason: str


class Search:
    """One search in one folder. Its journal says what it is a search of (`subject`); another subject is refused with InputError, and so
    is a second process.

    neighbours: how many styles that differ from the reference in one key it begins with. measure: tries a style, given what was found so
    far, the reference first. What it raises stops the search, but for StyleError, EncoderError and NonFiniteError, which are reasons
    against that style, unless it is the reference.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        measure: Measure,
        subject: Mapping[str, str],
        seed: int = 0,
        population: int = 16,
        neighbours: int = NEIGHBOURS,
    ) -> None:
        self.space, self.measure, self.seed, self.population = space, measure, seed, population
        self.tried: list[Tried] = []
        self.refused: list[Refusal] = []
        self._settled: set[tuple[Value, ...]] = set()  # points that were tried or refused
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / JOURNAL)
        try:
            self._study = self._open(folder / JOURNAL, {**subject, "space": json.dumps(space.values), "seed": str(seed)}, neighbours)
        except BaseException:
            self.close()
            raise

    def run(self, enough: Callable[[], bool], told: Callable[[Tried], None] = lambda tried: None) -> bool:
        """Try one style after the other until it is enough. False when nothing new is found to try before that."""
        refusals = 0
        while not enough():
            if refusals == MOST_REFUSALS or len(self._settled) == self.space.size:
                return False
            outcome = self._step()
            refusals = refusals + 1 if isinstance(outcome, Refusal) else 0
            if isinstance(outcome, Tried):
                told(outcome)
        return True

    def front(self) -> list[Tried]:
        """What no other style dominates, the most accurate first."""
        return [tried for tried, _ in front([(tried, tried.finding) for tried in self.tried])]

    def propose(self, point: Point, note: str) -> str:
        """Have a critic's point tried next. Returns why it will not be, or nothing."""
        reason = self._forbidden(point)
        if not reason:
            self._study.enqueue_trial(dict(point), user_attrs={"origin": CRITIC, "note": note})
        return reason

    @property
    def waiting(self) -> int:
        """How many points are waiting to be tried."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def keep(self, key: str, value: Any) -> None:
        """Remember something beside the trials."""
        self._study.set_user_attr(key, value)

    def kept(self, key: str) -> Any:
        """What was remembered, or None."""
        return self._study.user_attrs.get(key)

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- one trial

    def _step(self) -> Tried | Refusal:
        trial = self._next()
        point: dict[str, Any] = {key: trial.suggest_categorical(key, values) for key, values in self.space.values.items()}
        if reason := self._forbidden(point):
            if not self.tried:
                raise StyleError(reason)
            return self._refuse(trial, reason)
        try:
            finding = self.measure(self.space.style(point), [tried.finding for tried in self.tried])
        except (StyleError, EncoderError, NonFiniteError) as error:
            if not self.tried:
                raise  # a reference that cannot be read is nothing to compare with
            return self._refuse(trial, str(error))
        trial.set_user_attr("finding", finding.to_json())
        if finding.stopped == UNREADABLE:
            trial.set_constraint("readable", 1.0 - finding.accuracy.share)
        self._study.tell(trial, finding.objectives)
        return self._take_up(self._study.get_trials(deepcopy=False)[trial.number])

    def _next(self) -> optuna.Trial:
        """The trial that was stopped in the middle, or the next one."""
        finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        draw = Random(f"{self.seed} {len(finished)}").getrandbits(32)
        self._study.sampler = NSGAIISampler(population_size=self.population, seed=draw)
        for stopped in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            return optuna.Trial(self._study, stopped._trial_id)  # what it was to try is in the journal
        return self._study.ask()

    def _forbidden(self, point: Point) -> str:
        """Why a point of the space is not tried, or nothing."""
        try:
            style = self.space.style(point)
        except StyleError as error:
            return str(error)
        before = next((tried.number for tried in self.tried if tried.style == style), None)
        return "" if before is None else f"tried before, as {before}"

    def _refuse(self, trial: optuna.Trial, reason: str) -> Tried | Refusal:
        trial.set_user_attr("refused", reason)
        self._study.tell(trial, state=TrialState.FAIL)
        return self._take_up(self._study.get_trials(deepcopy=False)[trial.number])

    # -- the journal

    def _open(self, journal: Path, subject: Mapping[str, str], neighbours: int) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        _take_back_a_broken_line(journal)
        try:
            storage = JournalStorage(JournalFileBackend(str(journal)))
            if storage.get_all_studies():  # Optuna writes into the journal when asked to create what is there
                study = optuna.load_study(study_name=STUDY, storage=storage)
            else:
                study = optuna.create_study(study_name=STUDY, storage=storage, directions=["maximize"] * 3)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{journal} is not the journal of a search ({error}); choose another --out") from None
        kept = study.user_attrs.get("subject")
        if kept is None:
            study.set_user_attr("subject", dict(subject))
        elif kept != dict(subject):
            other = next(key for key in subject if kept.get(key) != subject[key])
            raise InputError(f"{journal} is a search with another {other}; give the options it was begun with, or choose another --out")
        if study.user_attrs.get("begun") is None:
            for origin, point in self._beginning(neighbours):
                study.enqueue_trial(dict(point), user_attrs={"origin": origin}, skip_if_exists=True)
            study.set_user_attr("begun", True)
        self._study = study
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
            self._take_up(trial)
        return study

    def _beginning(self, count: int) -> Iterator[tuple[str, Point]]:
        """The reference and its neighbours: around a style that is read, random points are hardly ever read at all."""
        yield REFERENCE, self.space.origin
        neighbours = list(self.space.neighbours())
        Random(f"{self.seed} neighbours").shuffle(neighbours)
        for point in neighbours[:count]:
            yield NEIGHBOUR, point

    def _take_up(self, trial: FrozenTrial) -> Tried | Refusal:
        """Note a finished trial."""
        origin = trial.user_attrs.get("origin", EVOLVED)
        self._settled.add(tuple(trial.params[key] for key in self.space.values))
        if trial.state == TrialState.FAIL:
            refusal = Refusal(trial.number, trial.params, origin, trial.user_attrs.get("refused", ""))
            self.refused.append(refusal)
            return refusal
        tried = Tried(
            trial.number,
            trial.params,
            self.space.style(trial.params),
            origin,
            Finding(**trial.user_attrs["finding"]),
            trial.user_attrs.get("note", ""),
        )
        self.tried.append(tried)
        return tried


def _lock(journal: Path) -> BinaryIO:
    """The journal, open and held against other processes."""
    stream = journal.open("ab")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise InputError(f"another process searches in {journal.parent}; wait for it, or choose another --out") from None
    return stream


def _take_back_a_broken_line(journal: Path) -> None:
    """A process that was killed may have left half a line, on which Optuna would stumble."""
    with journal.open("r+b") as stream:
        whole = stream.read()
        if whole and not whole.startswith(b'{"op_code"'):
            raise InputError(f"{journal} is not the journal of a search; choose another --out")
        stream.truncate(whole.rfind(b"\n") + 1)
