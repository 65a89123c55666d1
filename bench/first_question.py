"""Time to the first and to a second answer on one document, beside stock transformers with the same weights.

Both start from the same text and end with the same greedy tokens, which is checked. Rounds alternate, so the ratio holds on a
noisy machine. The peer gets its pages as PIL images from our typesetter (its own chain of reportlab and poppler would only add
to its time); it runs Glm4vImageProcessorPil and Glm4vForConditionalGeneration.generate, cold for every question.

    python bench/first_question.py [--pages 4] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from glyph_rt.export.reader.held_out import questions
from PIL import Image
from transformers import Glm4vForConditionalGeneration, Glm4vImageProcessorPil

from glyph_rt import Limits, Runtime, Sampling
from glyph_rt.memory.limits import peak_rss_bytes

NEW_TOKENS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", choices=("glyph-rt", "transformers"), help="answer once on this side and print the peak memory")
    options = parser.parse_args()
    # Nothing of a round is kept for the next: the first answer is a first answer in every round.
    runtime = Runtime.open(encoder="torch", limits=Limits(page_bytes=0, encoded_bytes=0))
    asked = questions(runtime.typesetter, 2, [options.pages])
    text, (first, second) = asked[0].text, (q.question for q in asked)
    if options.side:
        print(one_side(runtime, text, first, options.side))
        return
    peer = Stock(runtime, text)
    ours: dict[str, list[float]] = {"first": [], "second": []}
    theirs: dict[str, list[float]] = {"first": [], "second": []}
    for number in range(options.rounds + 1):  # the first round warms both up and is not counted
        start = time.perf_counter()
        document = runtime.read(text)
        tokens = {"first": answer(document.ask(first, Sampling(NEW_TOKENS)))}
        middle = time.perf_counter()
        tokens["second"] = answer(document.ask(second, Sampling(NEW_TOKENS)))
        mine = {"first": middle - start, "second": time.perf_counter() - middle}
        document.close()
        for name, question in (("first", first), ("second", second)):
            found, seconds = timed(lambda q=question: peer.answer(q))  # type: ignore[misc]
            assert found == tokens[name], f"the answers differ: {found!r}, {tokens[name]!r}"
            if number:
                ours[name].append(mine[name])
                theirs[name].append(seconds)
    limit = floor_seconds(runtime, text)
    visual = runtime.measure(text).visual_tokens
    print(f"{options.pages} pages, {visual} visual tokens, {options.rounds} rounds, {torch.get_num_threads()} threads")
    print(f"floor of reading (matrix FLOPs at this box's own matrix speed): {1e3 * limit:.1f} ms")
    for name in ("first", "second"):
        ratios = sorted(b / a for a, b in zip(ours[name], theirs[name], strict=True))
        print(
            f"{name:6} answer: glyph-rt {1e3 * statistics.median(ours[name]):7.1f} ms, transformers "
            f"{1e3 * statistics.median(theirs[name]):7.1f} ms, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    runtime.close()
    for side in ("glyph-rt", "transformers"):
        command = [sys.executable, __file__, "--pages", str(options.pages), "--side", side]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"peak memory of one answer in a process of its own: {side} {peak / 2**20:.0f} MiB")


def one_side(runtime: Runtime, text: str, question: str, side: str) -> int:
    """Answer once; the most bytes this process held. Both sides have imported the same packages."""
    if side == "transformers":
        Stock(runtime, text).answer(question)
    else:
        with runtime.read(text) as document:
            answer(document.ask(question, Sampling(NEW_TOKENS)))
    return peak_rss_bytes()


class Stock:
    """transformers as its documentation uses it, on pages already drawn."""

    def __init__(self, runtime: Runtime, text: str) -> None:
        self.runtime = runtime
        self.model = Glm4vForConditionalGeneration.from_pretrained(runtime.checkpoint.path, dtype=torch.float32).eval()
        self.processor = Glm4vImageProcessorPil(do_resize=False)
        self.pages = list(runtime.typesetter.pages(text))
        self.images = [Image.fromarray(page.pixels()).convert("RGB") for page in self.pages]

    @torch.inference_mode()
    def answer(self, question: str) -> str:
        template = self.runtime.template
        batch = self.processor(images=self.images, return_tensors="pt")
        tokens: list[int] = []
        for page in self.pages:
            tokens += template.page(page.number, 0, page.width // 28, page.height // 28).tokens
        ids = torch.tensor([tokens + template.question(question, 0).tokens])
        out = self.model.generate(
            input_ids=ids,
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            **batch,
        )
        stream = template.stream(NEW_TOKENS)
        return "".join(piece.text for token in out[0, ids.shape[1] :].tolist() if not stream.ended for piece in stream.push(token))


def answer(pieces: object) -> str:
    return "".join(pieces)  # type: ignore[call-overload,no-any-return]


def timed(call: Callable[[], str]) -> tuple[str, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def floor_seconds(runtime: Runtime, text: str) -> float:
    """Matrix FLOPs of encoding and prefilling the document, over the fp32 matrix speed measured here and now."""
    v, t = runtime.checkpoint.config.vision_config, runtime.checkpoint.config.text_config
    per_patch = v.depth * (4 * v.hidden_size**2 + 3 * v.hidden_size * v.out_hidden_size) + 196 * v.hidden_size
    per_token = 4 * v.hidden_size * v.out_hidden_size + v.out_hidden_size**2 + 3 * v.out_hidden_size * v.intermediate_size
    kv = t.num_key_value_heads * t.hidden_size // t.num_attention_heads
    decoder = t.num_hidden_layers * (2 * t.hidden_size**2 + 2 * t.hidden_size * kv + 3 * t.hidden_size * t.intermediate_size)
    flops = 2 * runtime.measure(text).visual_tokens * (4 * per_patch + per_token + decoder)
    a, b = torch.randn(2048, 512), torch.randn(512, 512)
    best = min(timed(lambda: str((a @ b)[0, 0]))[1] for _ in range(20))
    return flops / (2 * 2048 * 512 * 512 / best)


if __name__ == "__main__":
    main()
