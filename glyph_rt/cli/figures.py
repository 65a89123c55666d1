"""The JSON object of an answer, whoever gave it."""

from __future__ import annotations

from typing import Any

COUNTED = ("characters", "prompt_tokens", "cached_tokens", "completion_tokens", "drafted_tokens", "accepted_tokens")


def answer_figures(
    *,
    answer: str,
    quotes: list[dict[str, Any]],
    thinking: str,
    finish_reason: str | None,
    usage: Any,
    read: Any,
    timings: Any,
    first_s: float,
) -> dict[str, Any]:
    """Of an answer that has ended. usage, read, timings: the runtime's or the contract's, which have these names in common.

    Times are seconds. first_s: from the question to the first piece; ttft_s adds the reading to it.
    """
    before_question = read.typeset_s + read.encode_s + read.prefill_s
    return {
        "answer": answer,
        "quotes": quotes,
        "thinking": thinking,
        "finish_reason": finish_reason,
        "usage": {
            "text_tokens": usage.text_tokens,
            "visual_tokens": usage.visual_tokens,
            "compression": round(usage.text_tokens / usage.visual_tokens, 3),
            "pages": usage.pages,
            **{name: getattr(usage, name) for name in COUNTED},
        },
        "timings": {
            "typeset_s": round(read.typeset_s, 4),
            "encode_s": round(read.encode_s, 4),
            "prefill_s": round(read.prefill_s + timings.prefill_s, 4),
            "ttft_s": round(before_question + first_s, 4),
            "decode_s": round(timings.decode_s, 4),
            "tokens_per_s": round(timings.tokens_per_s, 1),
        },
    }
