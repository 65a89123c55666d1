"""A trained reader as a model directory in Hugging Face layout: what `Checkpoint.open` loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from glyph_rt.export.reader.alphabet import CONTROL, IDS, VOCABULARY_SIZE
from glyph_rt.export.reader.network import Reader, checkpoint_state
from glyph_rt.export.reader.size import Size
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from glyph_rt.typeset import Style, Typesetter

# The GLM-4.1V conversation format, as zai-org's own template writes it for plain user and assistant turns.
CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

# Of a matrix's weights. bf16 has 8; with 5 the answers of the training's version 7 were as often right (bench/reader_quality.py: 85.0 %
# of values on 1 to 4 pages, 84.5 with 8; 72.5 and 73.0 on 8 pages), and the file, of which a repository keeps every version for ever,
# compresses to 3.3 MB instead of 4.3.
SIGNIFICANT_BITS = 5


def write_package(reader: Reader, typesetter: Typesetter, out: Path) -> None:
    """Write config.json, model.safetensors (`kept`), tokenizer files, generation_config.json and style.json into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    config = reader.size.config() | {"dtype": "bfloat16"}
    _write_json(out / "config.json", config)
    _write_json(out / "generation_config.json", {"eos_token_id": config["text_config"]["eos_token_id"], "pad_token_id": IDS["<|pad|>"]})
    _write_json(out / "style.json", typesetter.style.to_json() | {"atlas-digest": typesetter.atlas.digest()})
    state = {name: kept(tensor) for name, tensor in checkpoint_state(reader).items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    _tokenizer().save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read


def kept(weights: Tensor) -> Tensor:
    """bf16; a matrix's are rounded to SIGNIFICANT_BITS, so by a thirty-second part of themselves at most."""
    if weights.ndim < 2:
        return weights.to(torch.bfloat16)
    mantissa, exponent = torch.frexp(weights.float())
    return torch.ldexp((mantissa * 2**SIGNIFICANT_BITS).round() / 2**SIGNIFICANT_BITS, exponent).to(torch.bfloat16)


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = IDS | {f"<|unused{i}|>": i for i in range(len(IDS), VOCABULARY_SIZE)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    tokenizer.add_special_tokens(list(CONTROL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|user|>", pad_token="<|pad|>", unk_token="<|unk|>", additional_special_tokens=list(CONTROL)
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_mean(runs: Sequence[Path], target: Path) -> None:
    """Write the model whose weights are the mean of those that `runs`, folders of one style and one size, would write by now.

    What was trained on last is learned at the expense of what was learned before; halfway between the two stands most of both (model soups,
    Wortsman et al., ICML 2022).
    """
    states = [torch.load(run / "state.pt", map_location="cpu", weights_only=True) for run in runs]
    first = states[0]
    if any((state["size"], state["style"]) != (first["size"], first["style"]) for state in states):
        raise ValueError(f"runs of other sizes or styles have no mean: {', '.join(map(str, runs))}")
    style = Style.from_json(first["style"], str(runs[0]))
    reader = Reader(Size(**first["size"]), style.height // 14, style.width // 14)
    reader.load_state_dict({name: torch.stack([state["mean"][name] for state in states]).mean(0) for name in first["mean"]})
    write_package(reader, Typesetter(style), target)
