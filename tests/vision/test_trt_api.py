"""Every TensorRT name and keyword our sources use exists in every TensorRT they claim to support."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import glyph_rt
from glyph_rt.errors import EncoderError
from glyph_rt.vision import trt_api
from tests.vision.trt_names import TABLE, WHEELS, Names, missing, names_of, table, to_json, wanted

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="tensorrt-rtx is not installed")


def recorded() -> dict[str, Names]:
    """Each name's overloads are JSON of their own, to keep a line a name."""
    versions = json.loads(TABLE.read_text())
    return {version: {name: json.loads(overloads) for name, overloads in names.items()} for version, names in versions.items()}


@pytest.mark.parametrize("version", WHEELS)
def test_every_name_and_keyword_exists(version: str) -> None:
    assert missing(wanted(), recorded()[version]) == []


@needs_rtx
def test_every_name_and_keyword_exists_in_tensorrt_for_rtx() -> None:
    used = wanted(rtx=True)
    assert missing(used, names_of("tensorrt_rtx_bindings", sorted(used))) == []


@pytest.mark.slow
def test_the_recorded_names_are_those_of_nvidias_bindings() -> None:
    if any(shutil.which(tool) is None for tool in ("gcc", "readelf", "nm")):
        pytest.skip("needs gcc and binutils")
    try:
        found = table()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the bindings wheels cannot be had: {error.stderr[-200:]!r}")
    assert to_json(found) == TABLE.read_text(), "run python -m tests.vision.trt_names"


def test_what_is_used_is_found_in_the_sources() -> None:
    """The check is worth what it collects: one name of each way of using one."""
    used = wanted()
    assert used["IExecutionContext.set_device_memory"] == ["memory", "size"]  # a method
    assert "Builder.error_recorder" in used  # an attribute
    assert {"MemoryPoolType.WORKSPACE", "DataType.BF16", "IProgressMonitor.step_complete", "ILogger.Severity.WARNING"} <= used.keys()


def test_a_missing_name_or_keyword_is_reported() -> None:
    has: Names = {"A.f": [["x"], ["x", "y"]], "A.g": [["other"]]}
    assert missing({"A.f": ["x", "y"], "A.g": ["x"], "A.h": None}, has) == ["A.g(x)", "A.h"]


def test_no_other_source_knows_tensorrt_by_name() -> None:
    sources = [p for p in Path(glyph_rt.__file__).parent.rglob("*.py") if p.name != "trt_api.py"]
    assert len(sources) > 20
    assert [p.name for p in sources if "import tensorrt" in p.read_text()] == []


def fake_importer(**modules: Any) -> Any:
    def importer(name: str) -> Any:
        if name in modules:
            return modules[name]
        raise ImportError(f"No module named {name!r}")

    return importer


def test_a_missing_tensorrt_says_how_to_get_it() -> None:
    with pytest.raises(EncoderError, match="pip install 'glyph-rt\\[rtx\\]'"):
        trt_api.load("tensorrt-rtx", fake_importer())
    assert trt_api.available(fake_importer()) == []


def test_an_old_tensorrt_is_refused_and_a_new_one_reads_modern_graphs() -> None:
    def load(version: str) -> trt_api.TensorRT:
        return trt_api.load("tensorrt", fake_importer(tensorrt=SimpleNamespace(__version__=version)))

    with pytest.raises(EncoderError, match=r"8\.6\.2\.3 is too old; 10\.3"):
        load("8.6.2.3")
    assert [load(v).reads_modern for v in ("10.3.0", "10.14.1.48", "10.16.1.11", "11.4.0.106")] == [False, False, True, True]


def test_strong_typing_is_asked_for_by_name_where_there_is_such_a_flag() -> None:
    flags = []
    builder: Any = SimpleNamespace(create_network=flags.append)
    for creation in (SimpleNamespace(STRONGLY_TYPED=1), SimpleNamespace(STRONGLY_TYPED=0), SimpleNamespace()):
        trt_api.TensorRT(SimpleNamespace(NetworkDefinitionCreationFlag=creation), "tensorrt").network(builder)
    assert flags == [2, 1, 0]


@needs_rtx
def test_loggers_and_recorders_work_as_tensorrts_own_classes(caplog: pytest.LogCaptureFixture) -> None:
    trt = trt_api.load("tensorrt-rtx")
    logger: Any = trt.logger()
    assert trt_api.load("tensorrt-rtx").logger() is logger, "TensorRT ignores a second one"
    with caplog.at_level(logging.WARNING, "glyph_rt.tensorrt"), trt.listening() as messages:
        logger.log(trt.module.ILogger.Severity.INFO, "quiet")
        logger.log(trt.module.ILogger.Severity.WARNING, "loud")
    logger.log(trt.module.ILogger.Severity.INFO, "nobody listens")
    assert messages == ["quiet", "loud"]
    assert caplog.messages == ["loud"]
    recorder: Any = trt.recorder()
    recorder.report_error(trt.module.ErrorCodeTRT.INVALID_CONFIG, "two\nlines")
    assert (recorder.num_errors(), recorder.errors, recorder.has_overflowed()) == (1, ["two lines"], False)
    assert recorder.get_error_code(0) == trt.module.ErrorCodeTRT.INVALID_CONFIG
    recorder.clear()
    assert recorder.num_errors() == 0
