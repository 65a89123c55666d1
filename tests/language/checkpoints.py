"""Tokenizers of the kinds that occur in the wild, and a small random model with the tokens and the chat template of GLM-4.1V-Thinking."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Glm4vConfig, Glm4vForConditionalGeneration, PreTrainedTokenizerFast

from glyph_rt.checkpoint import EMBEDDED_READER

CORPUS = [
    *Path(__file__).read_text(encoding="utf-8").splitlines(),
    "The notice period is four weeks. Invoice total: EUR 12,400.00; the goods were packed at noon.",
    '{"order number": "QX-58213", "weight": 417.5, "paid": true}',
    "你好，世界。合同第十二条", "Привет, мир", "émigré naïve 🙂🙃",
]  # fmt: skip
CONTROL = (
    "<|endoftext|> [gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|> <|begin_of_image|> <|image|> <|end_of_image|> "
    "<|begin_of_video|> <|video|> <|end_of_video|>"
).split()
THINKING = "<think> </think> <answer> </answer>".split()  # added, but not marked as special, as newer GLM tokenizers have them
TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def byte_level() -> Tokenizer:
    """Byte-level BPE, as GLM's: any byte sequence can come out of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(CONTROL)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in THINKING])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """BPE with a token for each byte, and blanks written as another character, as SentencePiece models have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])  # type: ignore[assignment]
    pieces: list[object] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(pieces)  # type: ignore[assignment,arg-type]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(CORPUS[-5:-3], trainers.BpeTrainer(vocab_size=380, special_tokens=tokens, show_progress=False))
    specification = json.loads(tokenizer.to_str())
    specification["added_tokens"] = specification["added_tokens"][:3]  # the bytes are ordinary tokens
    return Tokenizer.from_str(json.dumps(specification))


def per_character() -> Tokenizer:
    """The embedded reader's."""
    return Tokenizer.from_file(str(EMBEDDED_READER / "tokenizer.json"))


def write_thinking_model(path: Path, template: str = TEMPLATE) -> Path:
    """A model directory: two layers of random weights, a byte-level tokenizer, and more logits than tokens, as GLM has."""
    tokenizer = byte_level()
    ids = {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("image", "begin_of_image", "end_of_image", "user", "endoftext")}
    stop = [ids["endoftext"], ids["user"]]
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [2, 3, 3]}
    text = {
        "vocab_size": tokenizer.get_vocab_size() + 7, "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192, "rope_parameters": rope,
        "eos_token_id": stop, "pad_token_id": stop[0],
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 64, "num_heads": 2, "image_size": 336, "patch_size": 14, "out_hidden_size": 128, "intermediate_size": 96,
    }  # fmt: skip
    config = Glm4vConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image"],
        image_start_token_id=ids["begin_of_image"],
        image_end_token_id=ids["end_of_image"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(2)
    model = Glm4vForConditionalGeneration(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    fast.chat_template = template
    fast.save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
    return path
