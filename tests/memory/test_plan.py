"""The memory plan: it adds up, it refuses what cannot hold, and a runtime opened by it keeps to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Glm4vConfig

from glyph_rt import Limits, Runtime
from glyph_rt.checkpoint import Checkpoint
from glyph_rt.errors import OptionError, PlanError
from glyph_rt.language import LanguageModel, Quant, Sampling
from glyph_rt.memory.dry_run import HostMeter
from glyph_rt.memory.estimate import Target, decoder_bytes, estimated_plan, vision_parameters
from glyph_rt.memory.limits import GIB, MIB, KVDtype
from glyph_rt.memory.plan import TURN_TOKENS, Budget, MemoryPlan, Share
from glyph_rt.typeset import PRESETS
from tests.conftest import TEXT

# GLM-4.1V-9B, as far as shapes go (transformers' conversion script).
GLM_9B = {
    "architectures": ["Glm4vForConditionalGeneration"],
    "model_type": "glm4v",
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "glm4v_text", "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
        "num_attention_heads": 32, "num_key_value_heads": 2, "max_position_embeddings": 131072,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [8, 12, 12]},
    },
    "vision_config": {
        "model_type": "glm4v_vision", "depth": 24, "hidden_size": 1536, "num_heads": 12, "image_size": 336, "patch_size": 14,
        "out_hidden_size": 4096, "intermediate_size": 13696,
    },
}  # fmt: skip


def config_9b() -> Glm4vConfig:
    return Glm4vConfig(**GLM_9B)


SHARES = st.lists(st.builds(Share, st.sampled_from(["decoder weights", "workspace"]), st.integers(0, GIB), st.just("counted")), max_size=5)


@given(
    shares=SHARES,
    size=st.integers(1, 6 * GIB),
    reserve=st.integers(0, GIB),
    per_token=st.sampled_from([512, 21120, 40960]),
    turn_per_token=st.sampled_from([512, 40960]),
    page_tokens=st.integers(10, 4000),
    context=st.integers(4096, 131072),
)
def test_a_plan_adds_up(
    shares: list[Share], size: int, reserve: int, per_token: int, turn_per_token: int, page_tokens: int, context: int
) -> None:
    def within(size: int) -> MemoryPlan:
        per = {"kv_per_token": per_token, "turn_per_token": turn_per_token}
        return MemoryPlan.within(Budget(size, reserve), shares, **per, page_tokens=page_tokens, context=context)

    plan = within(size)
    assert plan.budget == size == sum(s.size for s in shares) + reserve + plan.kv_budget
    assert plan.weights == sum(s.size for s in shares if s.name == "decoder weights")
    turn = TURN_TOKENS * turn_per_token
    one_page = page_tokens * per_token + turn
    if plan.kv_budget >= one_page:
        assert plan.check() is plan
        assert plan.pages * page_tokens * per_token + turn <= plan.kv_budget
        assert plan.documents * (plan.document_pages * page_tokens * per_token + turn) <= plan.kv_budget
        assert plan.pages >= 1
    else:
        with pytest.raises(PlanError, match=r"at least .* would: raise --budget, lower --reserve, or use --quant"):
            plan.check()
        least = within(size - plan.kv_budget + one_page)
        assert least.check().pages == 1
    assert str(plan.pages) in plan.table().replace(",", "")


def test_the_figures_of_glm_4_1v_9b() -> None:
    """Parameters as counted from the checkpoint: vision 0.892 billion, decoder 8.780 billion, head 0.621 billion; 40 KiB of KV a token."""
    config = config_9b()
    assert vision_parameters(config) == pytest.approx(0.892e9, rel=1e-3)
    assert decoder_bytes(config, Target("cuda", "bf16")) == pytest.approx(2 * (8.780e9 + 0.621e9), rel=1e-3)
    plan = estimated_plan(config, PRESETS["glyph-en-72"], Limits(), Budget(24 * GIB), Target("cuda", "bf16")).check()
    assert plan.kv_per_token == 40 * 1024 and plan.page_tokens == 632 and plan.document_pages == 64
    assert 64 < plan.pages < 128, "24 GiB hold about one long document"
    for kept in (KVDtype.INT8, KVDtype.FP8):
        limits = Limits(kv_dtype=kept)
        packed = estimated_plan(config, PRESETS["glyph-en-72"], limits, Budget(24 * GIB), Target("cuda", "bf16")).check()
        assert packed.kv_per_token == 40 * 2 * 2 * (128 + 4) and packed.turn_per_token == 40 * 1024
        assert packed.pages > 1.7 * plan.pages
        assert {s.name: s.size for s in packed.shares}["unpacking a layer of KV"] == 131072 * 2 * 2 * 128 * 4
    captured = estimated_plan(config, PRESETS["glyph-en-72"], Limits(cuda_graphs=True), Budget(24 * GIB), Target("cuda", "bf16")).check()
    taken = {s.name: s.size for s in captured.shares}["captured decode steps"]
    assert captured.kv_budget == plan.kv_budget - taken
    assert 512 * MIB < taken < 768 * MIB, "graphs 128 MiB, scores 256, a layer's keys of the whole context 128, rows and logits the rest"
    small = estimated_plan(config, PRESETS["glyph-en-72"], Limits(), Budget(16 * GIB), Target("cuda", "bf16", Quant.INT4)).check()
    assert small.documents >= 1
    with pytest.raises(PlanError, match=r"decoder weights 17\.51 GiB"):
        estimated_plan(config, PRESETS["glyph-en-72"], Limits(), Budget(16 * GIB), Target("cuda", "bf16")).check()


@pytest.mark.parametrize("quant", [None, *Quant])
def test_counted_weights_are_the_weights(checkpoint: Checkpoint, quant: Quant | None) -> None:
    """But for the table of rope frequencies, which no configuration names."""
    model = LanguageModel(checkpoint, quant=quant)
    assert 0 <= model.weight_bytes - decoder_bytes(checkpoint.config, Target(quant=quant)) < 1024


def test_the_meter_sees_what_work_takes_at_its_highest() -> None:
    meter = HostMeter()

    def take(size: int) -> None:
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])

    assert 190 * MIB < meter.peak_of(lambda: take(200 * MIB)) < 260 * MIB
    assert meter.peak_of(lambda: take(20 * MIB)) < 100 * MIB, "an earlier peak counts no more"


def test_a_runtime_keeps_to_its_budget(random_model: Path, tmp_path: Path) -> None:
    budget = Budget(HostMeter().now() + GIB, 64 * MIB)
    with Runtime.open(random_model, encoder="torch", store=tmp_path, budget=budget) as runtime:
        plan = runtime.plan()
        assert plan.budget == budget.size and runtime.arena.budget == runtime.limits.kv_bytes == plan.kv_budget
        assert plan.kv_budget < GIB and runtime.arena.used == 0
        sizes = {share.name: share.size for share in plan.shares}
        assert sizes["decoder weights"] == runtime.model.weight_bytes and sizes["reserve"] == 64 * MIB
        with runtime.read(TEXT) as document:
            assert document.ask("Weight?", Sampling(max_new_tokens=3)).text is not None
    with pytest.raises(PlanError, match=r"process and libraries .* keys and values for one page"):
        Runtime.open(random_model, encoder="torch", store=tmp_path, budget=Budget(100 * MIB, 0))


def test_a_dry_run_finds_what_work_takes() -> None:
    """In a process of its own: in one that has worked before, memory is there already and nothing is taken."""
    told = subprocess.run(
        [sys.executable, "-c", "from glyph_rt.cli import main; main()", "plan", "--budget", "4GiB", "--json"],
        capture_output=True,
        check=True,
    )
    sizes = {share["name"]: share["size"] for share in json.loads(told.stdout)["shares"]}
    assert sizes["vision workspace, 8 pages"] + sizes["reading and answering"] > MIB
    assert sizes["process and libraries"] > 50 * MIB


@pytest.mark.parametrize("bad", [(0, 0), (1, -1)])
def test_a_budget_is_positive(bad: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="budget must be at least 1 byte"):
        Budget(*bad)


@pytest.mark.parametrize("bad", [{"device": "tpu"}, {"precision": "fp8"}])
def test_a_target_that_is_none_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="choose one of"):
        Target(**bad)  # type: ignore[arg-type]
