"""Engine profiles: those that ship are sound, and a wrong one says which key is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from glyph_rt.export.profiles import PROFILES, Profile, load_profile, profile_names

from glyph_rt.errors import ProfileError


def test_the_boxes_of_the_field_have_profiles() -> None:
    assert profile_names() == ["h100", "h200", "l4", "orin-agx", "rtx-4090", "rtx-4090d", "thor"]


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_valid_and_named_after_its_file(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.shapes[0].page_size.patches[1] == 2520  # the usual page: 588 x 840 px
    assert profile.precision != "fp32"  # fp32 attention does not fuse, or does not build at all
    assert profile.tensorrt == "tensorrt" or profile.compute_capability in ("7.5", "8.0", "8.6", "8.9", "12.0")


def test_only_what_changes_the_engine_changes_the_digest() -> None:
    profile = load_profile("rtx-4090")
    assert profile.digest == load_profile("rtx-4090d").digest  # same silicon generation, same engine
    assert profile.digest != profile.model_copy(update={"optimisation_level": 5}).digest


def without(key: str) -> dict[str, Any]:
    data = sound()
    del data[key]
    return data


def sound() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((PROFILES / "rtx-4090.yaml").read_text())
    return data


def shaped(pages: Any = None, size: Any = None) -> dict[str, Any]:
    data = sound()
    shape = data["shapes"][0]
    shape["pages"] |= pages or {}
    shape["page-size"] |= size or {}
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without("workspace"), "workspace: Field required"),
        (sound() | {"workspace": "plenty"}, "workspace: 'plenty' is not a size"),
        (sound() | {"workspace": "1KiB"}, "workspace: "),
        (sound() | {"speed": "high"}, "speed: Extra inputs"),
        (sound() | {"precision": "int4"}, r"precision: Input should be 'fp16', 'bf16', 'fp32' or 'int8' \(it is 'int4'\)"),
        (sound() | {"compute-capability": 8.9}, "compute-capability: Input should be a valid string"),
        (sound() | {"optimisation-level": 6}, "optimisation-level: .* 5"),
        (sound() | {"name": "../up"}, "name: "),
        (sound() | {"shapes": []}, "shapes: "),
        (shaped(pages={"max": 9}), r"shapes\.0\.pages\.max: .* 8"),
        (shaped(pages={"opt": 0}), r"shapes\.0\.pages: min <= opt <= max"),
        (shaped(size={"opt": [588, 841]}), r"shapes\.0\.page-size\.opt\.1: .* multiple of 28"),
        (shaped(size={"min": [868, 1288], "opt": [28, 28]}), r"shapes\.0\.page-size: .* 5704, 4, 20976"),
        (["a list"], "keys and values"),
    ],
)
def test_a_wrong_profile_names_the_key(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(str(path))
    assert caught.value.exit_code == 2


def test_a_file_of_ones_own_works(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(sound() | {"name": "mine"}))
    assert load_profile(str(path)).workspace == 2 * 2**30
    assert isinstance(load_profile(str(path)), Profile)


def test_what_is_no_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="choose one of h100"):
        load_profile("gtx-1080")
    with pytest.raises(ProfileError, match="no engine profile ''"):
        load_profile("")
    with pytest.raises(ProfileError, match="no engine profile"):
        load_profile(str(tmp_path / "none.yaml"))
    (tmp_path / "large.yaml").write_text("#" * 70_000)
    (tmp_path / "broken.yaml").write_text("name: [")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    for name, message in (("large", "larger than"), ("broken", "as YAML"), ("binary", "as YAML")):
        with pytest.raises(ProfileError, match=message):
            load_profile(str(tmp_path / f"{name}.yaml"))
