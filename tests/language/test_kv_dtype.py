"""Keys and values of documents in a byte each: how far off they are, what they take, and that no two dtypes share a name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glyph_rt import Limits, Runtime, Sampling
from glyph_rt.errors import OptionError
from glyph_rt.language import KVShape, KVTail, Past
from glyph_rt.language.rows import Rows
from glyph_rt.memory.limits import MIB, KVDtype
from tests.conftest import TEXT
from tests.language.parts import run

PACKED = [KVDtype.INT8, KVDtype.FP8]
QUESTIONS = ["What is the value of order number?", "What is the value of carrier?", "What is the value of door code?"]


@settings(max_examples=60, deadline=None)
@given(
    kept=st.sampled_from(PACKED),
    exponents=st.lists(st.integers(-20, 20), min_size=1, max_size=6),
    before=st.integers(0, 3),
    seed=st.integers(0, 10**6),
)
def test_what_is_packed_comes_back_within_its_bound(kept: KVDtype, exponents: list[int], before: int, seed: int) -> None:
    """Tokens of very different sizes, which must not disturb each other, nor those that were there."""
    generator = torch.Generator().manual_seed(seed)
    shape = KVShape(layers=2, kv_heads=2, head_dim=8, dtype=torch.float32, kept=kept)
    tail = KVTail(shape, before + len(exponents) + 1)
    for layer in range(2):
        tail.place(before).write(layer, torch.ones(2, 2, before, 8))
    tail.advance(before)
    numbers = torch.randn(2, 2, 2, len(exponents), 8, generator=generator) * 2.0 ** torch.tensor(exponents)[:, None]
    numbers[0, 0, 0, 0] = 0.0
    place = tail.place(len(exponents))
    for layer in range(2):
        place.write(layer, numbers[layer])
    tail.advance(len(exponents))
    segment = tail.seal()
    for layer in range(2):
        unpacked = torch.stack([segment.keys[layer].transpose(-1, -2), segment.values[layer]])
        torch.testing.assert_close(unpacked[:, :, :before], torch.ones(2, 2, before, 8), rtol=1e-6, atol=0)
        found, wanted = unpacked[:, :, before:], numbers[layer]
        largest = wanted.abs().amax(-1, keepdim=True)
        bound = largest / 254 if kept == KVDtype.INT8 else torch.maximum(wanted.abs() / 16, largest / 448 / 2**10)
        assert bool(((found - wanted).abs() <= bound * (1 + 1e-5) + 1e-30).all())


@pytest.mark.parametrize("kept", list(KVDtype))
def test_the_bytes_that_are_counted_are_held(kept: KVDtype) -> None:
    shape = KVShape(layers=3, kv_heads=2, head_dim=16, dtype=torch.bfloat16, kept=kept)
    segment = KVTail(shape, 7).first(7)
    assert segment.nbytes == 7 * shape.bytes_per_token
    assert segment.first(4).nbytes == 4 * shape.bytes_per_token == segment.first(4).copied_to("cpu").nbytes
    held = segment.copied_to("cpu").kv.untyped_storage().nbytes()
    assert held == 7 * 3 * 2 * 2 * 16 * (2 if kept == KVDtype.MODEL else 1)


def test_an_unknown_kv_dtype_is_refused() -> None:
    with pytest.raises(OptionError, match="choose one of: model, int8, fp8"):
        KVDtype.parse("int2")


@pytest.fixture(scope="module", params=PACKED, ids=str)
def packed(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with Runtime.open(encoder="torch", limits=Limits(kv_dtype=request.param, host_kv_bytes=MIB)) as runtime:
        yield runtime
        runtime.arena.check_integrity()
        assert runtime.arena.used == 0


def test_the_logits_of_the_reader_are_off_by_little(packed: Runtime, reader_runtime: Runtime) -> None:
    """Root mean square over every token of some questions, relative: below 0.6 % with int8, 3 % with fp8.

    Weights decide: int8 was off by less than 0.5 %, then by 0.57 % and 0.51 %, and is by 0.40 % with these.
    """
    exact, found = (torch.cat(list(question_logits(runtime))) for runtime in (reader_runtime, packed))
    error = float((found - exact).norm() / exact.norm())
    assert 0 < error < (0.006 if packed.limits.kv_dtype == KVDtype.INT8 else 0.03)


def question_logits(runtime: Runtime) -> Iterator[torch.Tensor]:
    """Logits behind every token of the questions, over what the runtime keeps of TEXT."""
    with runtime.read(TEXT) as document:
        lease = document.means.store.pin(document.keys)
        for question in QUESTIONS:
            prompt = runtime.template.question(question, document.end_position).tokens
            positions = torch.arange(document.end_position, document.end_position + len(prompt)).expand(3, -1)
            past = Past(lease.segments, KVTail(runtime.model.kv_shape, len(prompt)))
            yield run(runtime.model, [Rows(past, prompt, positions, wanted=len(prompt))])[0]
        lease.release()


def test_a_runtime_keeps_documents_packed_and_counts_what_they_take(packed: Runtime, reader_runtime: Runtime) -> None:
    with packed.read(TEXT) as document, reader_runtime.read(TEXT) as exact:
        assert document.digest != exact.digest, "the dtype is part of what names KV"
        assert document.kv_bytes == document.tokens * packed.plan().kv_per_token == packed.arena.used
        assert document.kv_bytes < 0.3 * exact.kv_bytes
        lease = document.means.store.pin(document.keys)
        assert sum(segment.nbytes for segment in lease.segments) == document.kv_bytes
        lease.release()
        right = QUESTIONS if packed.limits.kv_dtype == KVDtype.INT8 else QUESTIONS[:1]  # fp8 loses one of the others
        assert [document.ask(question).text for question in right] == [exact.ask(question).text for question in right]


def test_packed_documents_are_copied_to_the_host_and_back_and_appended_to(packed: Runtime) -> None:
    sampling = Sampling(max_new_tokens=12)
    with packed.read(TEXT) as document:
        before = document.ask(QUESTIONS[0], sampling).text
        document.evict()
        assert packed.store.host_used == document.kv_bytes
        again = document.ask(QUESTIONS[0], sampling)
        assert again.text == before and again.usage.cached_tokens == document.tokens
        with document.append("\nspare key: GARDEN\n") as longer:
            assert longer.prefilled_tokens < longer.tokens
            packed.store.check_integrity()
