"""How large the reader is, and its configuration in the terms of transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from glyph_rt.export.reader.alphabet import BEGIN_OF_IMAGE, END_OF_IMAGE, IDS, VOCABULARY_SIZE
from transformers import Glm4vConfig


@dataclass(frozen=True)
class Size:
    """Hyperparameters, named as in Glm4vConfig."""

    vision_hidden: int = 128
    vision_depth: int = 2
    vision_heads: int = 4
    vision_table: int = 24  # side of the learned position table, in patches
    vision_theta: float = 100.0  # small: at 10,000 the page's width would see only the lowest frequencies
    merger: int = 384
    hidden: int = 192
    layers: int = 5
    heads: int = 3
    kv_heads: int = 3
    mlp: int = 384
    theta: float = 30.0
    mrope_section: tuple[int, int, int] = field(default=(4, 6, 6))
    max_positions: int = 8192

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def pointing(self) -> tuple[int, int]:
        """The layers that learn to look at the visual token of the next character.

        Between them a layer lets every character of an answer learn where the first one looked for the character before it. Without that
        layer the place of an answer's second and third character is found by content alone, and often missed among many pages.
        """
        return max(0, self.layers - 3), self.layers - 1

    @classmethod
    def of(cls, config: Glm4vConfig) -> Size:
        """What `config` made this configuration from."""
        text, vision = config.text_config, config.vision_config
        return cls(
            vision_hidden=vision.hidden_size,
            vision_depth=vision.depth,
            vision_heads=vision.num_heads,
            vision_table=vision.image_size // 14,
            vision_theta=vision.rope_parameters["rope_theta"],
            merger=vision.intermediate_size,
            hidden=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            mlp=text.intermediate_size,
            theta=text.rope_parameters["rope_theta"],
            mrope_section=tuple(text.rope_parameters["mrope_section"]),
            max_positions=text.max_position_embeddings,
        )

    def config(self) -> dict[str, Any]:
        """config.json of this network."""
        eos = [IDS["<|user|>"], IDS["<|endoftext|>"]]
        return {
            "architectures": ["Glm4vForConditionalGeneration"],
            "model_type": "glm4v",
            "image_token_id": IDS["<|image|>"],
            "image_start_token_id": BEGIN_OF_IMAGE,
            "image_end_token_id": END_OF_IMAGE,
            "video_token_id": IDS["<|video|>"],
            "video_start_token_id": IDS["<|begin_of_video|>"],
            "video_end_token_id": IDS["<|end_of_video|>"],
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "glm4v_text",
                "vocab_size": VOCABULARY_SIZE,
                "hidden_size": self.hidden,
                "intermediate_size": self.mlp,
                "num_hidden_layers": self.layers,
                "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads,
                "max_position_embeddings": self.max_positions,
                "pad_token_id": IDS["<|pad|>"],
                "eos_token_id": eos,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": self.theta,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": list(self.mrope_section),
                },
            },
            "vision_config": {
                "model_type": "glm4v_vision",
                "depth": self.vision_depth,
                "hidden_size": self.vision_hidden,
                "num_heads": self.vision_heads,
                "image_size": 14 * self.vision_table,
                "patch_size": 14,
                "out_hidden_size": self.hidden,
                "intermediate_size": self.merger,
                "rms_norm_eps": 1e-5,
                "rope_parameters": {"rope_type": "axial", "rope_theta": self.vision_theta},
            },
        }
