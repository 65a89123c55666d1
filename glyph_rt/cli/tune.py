"""`glyph-rt tune`: search page styles around a reference, and judge what the search finds."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glyph_rt.cli.progress import question_progress
from glyph_rt.errors import InputError, OptionError
from glyph_rt.identity import digest
from glyph_rt.memory.limits import Limits, parse_size

if TYPE_CHECKING:
    from glyph_rt.runtime import Runtime
    from glyph_rt.tune.critic import Critic
    from glyph_rt.tune.questions import Asked
    from glyph_rt.tune.search import Tried
    from glyph_rt.tune.space import Space


@dataclass(frozen=True)
class TuneOptions:
    """The command line of `tune`."""

    out: Path
    model: Path | None
    style: str | None
    vary: str | None
    minutes: float
    trials: int | None
    size: int
    held_out: int
    data: Path | None
    rule: str
    neighbours: int
    population: int
    seed: int
    critic_url: str | None
    critic_model: str | None
    critic_key_env: str | None
    encoder: str
    kv_bytes: str
    as_json: bool


def run(options: TuneOptions) -> None:
    """Search, judge, write, and print the table. A line on standard error for every style that was tried."""
    if importlib.util.find_spec("optuna") is None:
        raise InputError("tuning needs optuna; install it with: pip install 'glyph-rt[tune]'")
    limits = Limits(kv_bytes=parse_size(options.kv_bytes))
    critic = _critic(options)
    from glyph_rt.runtime import Runtime
    from glyph_rt.tune.judgement import judge, picks
    from glyph_rt.tune.report import table, write
    from glyph_rt.tune.search import Search
    from glyph_rt.tune.trial import Trier, for_trials

    with Runtime.open(options.model, style=options.style, encoder=options.encoder, limits=limits) as opened:
        runtime = for_trials(opened)
        searched, held_out = _tasks(options, runtime)
        space = _space(options, runtime, searched, held_out)
        subject = _subject(options, runtime)
        trier = Trier(runtime, searched)
        asked = {**subject, "questions": _named(searched)}
        with Search(options.out, space, trier, asked, options.seed, options.population, options.neighbours) as search:
            end = time.monotonic() + 60 * options.minutes

            def enough() -> bool:
                done = len(search.tried)
                if done > 0 and (time.monotonic() >= end or (options.trials is not None and done >= options.trials)):
                    return True
                if critic is not None:
                    critic.advise(search)
                return False

            if not search.run(enough, lambda tried: _tell(space, tried)):
                print("nothing new was found to try", file=sys.stderr)
            reference, front = search.tried[0], search.front()
            judged_by = Trier(runtime, held_out)
            others = [each for each in front if each is not reference]
            with question_progress() as progress:
                named = {**subject, "questions": _named(replace(held_out, asked=held_out.asked[:1]))}  # others may be added to them
                judged = judge(judged_by, [reference, *others], options.out / "held-out", named, progress)
            picked = picks(search.tried, front)
            counts = {} if critic is None else critic.counts(search)
            write(options.out, search, judged, picked, counts, {**subject, "held out": _named(held_out)})
            print((options.out / "front.json").read_text("utf-8") if options.as_json else table(search, judged, picked))


def _critic(options: TuneOptions) -> Critic | None:
    """Nothing is asked of any network without --critic-url."""
    if options.critic_url is None:
        if options.critic_model or options.critic_key_env:
            raise OptionError("--critic-model and --critic-key-env need --critic-url")
        return None
    if not options.critic_model:
        raise OptionError("--critic-url needs --critic-model, the model's name at that endpoint")
    key = os.environ.get(options.critic_key_env, "").strip() if options.critic_key_env else ""
    if options.critic_key_env and not key:
        raise OptionError(f"the environment variable {options.critic_key_env} of --critic-key-env is not set")
    from glyph_rt.tune.critic import Critic, Endpoint

    return Critic(Endpoint(options.critic_url, options.critic_model, key))


def _tasks(options: TuneOptions, runtime: Runtime) -> tuple[Asked, Asked]:
    """What is searched on, and what the front is judged by."""
    from glyph_rt.tune.questions import HELD_OUT_SEED, SEARCH_SEED, Asked, from_file, made_up

    if options.data is None:
        searched = made_up(runtime.typesetter, options.size, SEARCH_SEED)
        held_out = made_up(runtime.typesetter, options.held_out, HELD_OUT_SEED)
    else:
        searched, held_out = from_file(options.data)
        searched, held_out = searched[: options.size], held_out[: options.held_out]
    return Asked("search", searched, options.rule), Asked("held out", held_out, options.rule)


def _space(options: TuneOptions, runtime: Runtime, *tasks: Asked) -> Space:
    from glyph_rt.tune.space import Space

    trained = runtime.checkpoint.trained_style
    return Space.around(
        runtime.style,
        tuple(options.vary.split(",")) if options.vary else (),
        tabs=any("\t" in text for task in tasks for text in task.texts),
        page_tokens=runtime.model.context // 2,
        glyphs=None if trained is None or trained.style != runtime.style else trained.atlas_digest,
    )


def _subject(options: TuneOptions, runtime: Runtime) -> dict[str, str]:
    """What is measured: an answer of one subject says nothing about another."""
    return {
        "model": runtime.checkpoint.digest[:16],
        "reference": json.dumps(runtime.style.to_json(), sort_keys=True),
        "encoder": runtime.encoder.name,
        "rule": options.rule,
    }


def _named(task: Asked) -> str:
    """The identity of a set of questions."""
    return f"{len(task.asked)}, {digest(*(part for q in task.asked for part in (q.text, q.question, q.expected)))[:16]}"


def _tell(space: Space, tried: Tried) -> None:
    finding = tried.finding
    from glyph_rt.tune.report import changes_told

    told = f" ({finding.stopped})" if finding.stopped else ""
    figures = f"accuracy {finding.accuracy} of {len(finding.right)}{told}, compression {finding.compression:.2f}, time x {finding.time:.2f}"
    print(f"{tried.number:4} {tried.origin}: {figures}: {changes_told(space, tried)}", file=sys.stderr, flush=True)
