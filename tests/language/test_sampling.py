"""Sampling: the distributions of transformers' `generate`, drawn reproducibly."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from glyph_rt import Runtime, Sampling
from glyph_rt.errors import OptionError
from glyph_rt.language import Sampler
from tests.conftest import TEXT

VOCABULARY = 64


@pytest.fixture(scope="module")
def stock() -> LlamaForCausalLM:
    """Any model will do: what is asked of it is the list of processors that its `generate` would use."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes))


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 999),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    prompt=TOKENS,
    answer=TOKENS,
    temperature=st.sampled_from([0.01, 0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 5, 64, 500]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.9, 1.0]),
    penalty=st.sampled_from([1.0, 1.1, 5.0, 0.5]),
)
def test_the_distribution_is_that_of_generate(
    stock: LlamaForCausalLM,
    seed: int,
    spread: float,
    prompt: list[int],
    answer: list[int],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    penalty: float,
) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread
    before = logits.clone()
    options: dict[str, Any] = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": penalty
    }  # fmt: skip
    sampler = Sampler(Sampling(**options), prompt)
    for length in range(len(answer)):  # as the loop does: every token is seen before the next is drawn
        sampler.scores(logits, answer[:length])
    ours = torch.softmax(sampler.scores(logits, answer), -1)
    config = GenerationConfig(do_sample=True, **options)
    stock._prepare_special_tokens(config, device="cpu")
    processors = stock._get_logits_processor(config, input_ids_seq_length=1, device="cpu")
    ids = torch.tensor([[*prompt, *answer] or [0]])
    if not prompt and not answer:
        processors = type(processors)(p for p in processors if "Repetition" not in type(p).__name__)
    expected = torch.softmax(processors(ids, logits[None].clone()), -1)[0]
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=2e-5)
    assert torch.equal(logits, before), "the caller's logits were changed"
    assert int(ours.count_nonzero()) >= 1 and ours[sampler.next(logits, answer)] > 0


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), prompt=TOKENS, answer=TOKENS, penalty=st.sampled_from([1.0, 1.3, 20.0]))
def test_greedy_takes_the_likeliest_that_the_penalty_leaves(seed: int, prompt: list[int], answer: list[int], penalty: float) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))
    expected = [
        value * penalty if value < 0 else value / penalty if i in {*prompt, *answer} else value
        for i, value in enumerate(logits.tolist())
    ]  # fmt: skip
    expected = [v if i not in {*prompt, *answer} else w for i, (v, w) in enumerate(zip(logits.tolist(), expected, strict=True))]
    sampler = Sampler(Sampling(repetition_penalty=penalty, top_k=1, top_p=0.1, min_p=1.0), prompt)
    assert sampler.next(logits, answer) == max(range(VOCABULARY), key=lambda i: expected[i])


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    sampler = Sampler(Sampling(temperature=1.0, seed=3))
    counts = torch.bincount(torch.tensor([sampler.next(logits, []) for _ in range(20_000)]), minlength=4) / 20_000
    torch.testing.assert_close(counts, logits.exp(), atol=0.015, rtol=0)


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-6])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 100
    assert Sampler(Sampling(temperature=temperature, top_p=0.5, min_p=0.5, top_k=9)).next(logits, []) == int(logits.argmax())


@pytest.mark.parametrize(
    "bad",
    [
        {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.01}, {"top_p": float("nan")}, {"min_p": -0.1}, {"min_p": 2.0},
        {"repetition_penalty": 0.0}, {"repetition_penalty": float("inf")},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_name_themselves(bad: dict[str, Any]) -> None:
    name = next(iter(bad))
    with pytest.raises(OptionError, match=name.replace("_", "-")) as caught:
        Sampling(**bad)
    assert caught.value.field == f"sampling.{name}"


def test_a_seed_gives_its_answer_whatever_is_answered_beside_it(runtimes: dict[str, Runtime]) -> None:
    def options(seed: int) -> Sampling:
        return Sampling(max_new_tokens=20, temperature=1.2, seed=seed, top_p=0.9)

    with runtimes["random"].read(TEXT) as document:
        alone = [document.ask("Weight?", options(seed)).text for seed in range(4)]
        assert len(set(alone)) == 4
        together = [""] * 4

        def ask(seed: int) -> None:
            together[seed] = document.ask("Weight?", options(seed)).text

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone
        taken = [document.ask("Weight?", options(seed)) for seed in range(4)]
        steps = [answer.steps() for answer in taken]
        live = list(range(4))
        while live:  # one token of each in turn
            live = [i for i in live if next(steps[i], None) is not None]
        assert [answer.text for answer in taken] == alone
