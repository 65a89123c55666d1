"""The command line as a user meets it: real processes for the main paths, every bad input as one line and an exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from glyph_rt.checkpoint import Checkpoint
from glyph_rt.cli import main
from glyph_rt.vision.graph import GraphKind
from tests.conftest import TEXT
from tests.memory.test_plan import GLM_9B

Run = Callable[..., tuple[int, str, str]]
FIELDS = {
    "usage": {"text_tokens", "visual_tokens", "compression", "pages", "prompt_tokens", "completion_tokens"},
    "timings": {"load_s", "typeset_s", "encode_s", "prefill_s", "ttft_s", "decode_s", "tokens_per_s"},
    "memory": {"kv_bytes", "peak_rss_bytes"},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glyph-rt", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capfd.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def note(tmp_path: Path) -> Path:
    file = tmp_path / "note.txt"
    file.write_text(TEXT)
    return file


def glyph_rt(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from glyph_rt.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=600, env=os.environ | environment)


def test_json_holds_every_promised_field(run: Run, note: Path, random_model: Path) -> None:
    code, out, err = run("ask", note, "What is the weight?", "--json", "--model", random_model, "--max-new-tokens", 5)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert set(result) == {"answer", "quotes", "thinking", "finish_reason", "reading", "citations", *FIELDS}
    assert result["reading"]["strategy"] == "whole"
    for group, names in FIELDS.items():
        assert names <= set(result[group]), group
    usage, memory = result["usage"], result["memory"]
    assert usage["pages"] == 2 and usage["visual_tokens"] == 100 and usage["text_tokens"] == len(TEXT)
    assert usage["completion_tokens"] <= 5 and result["finish_reason"] in ("stop", "length")
    assert usage["prompt_tokens"] > usage["visual_tokens"] and usage["compression"] == pytest.approx(len(TEXT) / 100, abs=1e-3)
    assert all(seconds >= 0 for seconds in result["timings"].values())
    assert 0 < memory["kv_bytes"] < 2**30 and memory["peak_rss_bytes"] > 2**27


def test_a_process_streams_an_answer_from_standard_input(random_model: Path) -> None:
    """And its stats name characters per visual token beside compression; nothing else goes to standard error."""
    done = glyph_rt("ask", "-", "What is the weight?", "--stats", "--model", random_model, "--max-new-tokens", 5, stdin=TEXT.encode())
    assert done.returncode == 0
    assert done.stdout.endswith(b"\n")
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 6 and "characters per visual token" in lines[1] and "text tokens" in lines[1] and "peak memory" in lines[5]


def test_an_answer_has_the_form_that_was_asked_for(run: Run, note: Path, random_model: Path, tmp_path: Path) -> None:
    common = ("ask", note, "Weight?", "--model", random_model)
    code, out, _ = run(*common, "--regex", "(kg|lb): [0-9]{3}", "--repetition-penalty", 1.1, "--temperature", 2, "--top-k", 50)
    assert code == 0 and re.fullmatch("(kg|lb): [0-9]{3}\n", out)
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"kg": {"type": "boolean"}}, "required": ["kg"], "additionalProperties": false}')
    code, out, _ = run(*common, "--json-schema", schema, "--json")
    assert code == 0 and type(json.loads(json.loads(out)["answer"])["kg"]) is bool
    code, out, _ = run(*common, "--regex", "(kg|lb): [0-9]{3}", "--stop", ":")
    assert code == 0 and out in ("kg\n", "lb\n")


def test_seeded_answers_repeat(run: Run, note: Path, random_model: Path) -> None:
    options = ("ask", note, "Weight?", "--model", random_model, "--max-new-tokens", 12, "--temperature", 1.0)
    answers = [run(*options, "--seed", seed)[1] for seed in (3, 3, 4)]
    assert answers[0] == answers[1] != answers[2]


def test_render_says_what_it_will_draw_and_draws_it(run: Run, note: Path, random_model: Path, tmp_path: Path) -> None:
    code, out, _ = run("render", note, "--out", tmp_path / "pages", "--model", random_model)
    assert code == 0
    assert out.startswith("2 pages of at most 280 x 140 px, 100 visual tokens, compression ")
    files = sorted((tmp_path / "pages").iterdir())
    assert [file.name for file in files] == ["page-0001.png", "page-0002.png"]
    image = Image.open(files[0])
    assert image.size == (280, 140) and image.mode == "L" and image.getextrema() == (0, 255)


def test_render_reports_what_the_font_lacks(run: Run, random_model: Path, tmp_path: Path) -> None:
    (tmp_path / "cjk.txt").write_text("\u4e2d\u6587\u4e2d")
    code, _, err = run("render", tmp_path / "cjk.txt", "--out", tmp_path / "pages", "--model", random_model)
    assert code == 0 and "U+4E2D (2), U+6587 (1)" in err


def test_doctor_says_what_will_be_used(run: Run, random_model: Path) -> None:
    code, out, _ = run("doctor", "--model", random_model, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["vision encoder"].startswith("torch") and facts["style"].startswith("small: 280 x 140 px")
    assert "onnxruntime" in facts["packages"] and "CPUExecutionProvider" in facts["onnxruntime providers"]
    (encoder,) = facts["vision encoders"]
    assert encoder["name"] == "torch" and encoder["chosen"] and encoder["usable"] and encoder["ms_per_page"] > 0


def test_export_makes_the_encoder_that_ask_then_uses(run: Run, note: Path, random_model: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", "--model", random_model)
    assert code == 0 and Path(out.split(" (")[0]).is_relative_to(tmp_path / "cache")
    common = ("ask", note, "Weight?", "--model", random_model, "--max-new-tokens", 8)
    assert run(*common, "--encoder", "onnx")[:2] == run(*common, "--encoder", "torch")[:2]
    GraphKind("modern", "bf16").path(Checkpoint.open(random_model), tmp_path / "cache" / "glyph-rt" / "engines").write_bytes(b"no graph")
    code, out, _ = run("doctor", "--model", random_model)
    table = out[out.index("vision encoders") :].splitlines()
    names = ["torch", "onnx-portable-fp32-grey", "onnx-modern-bf16-grey", "torch-bf16"]
    assert code == 0 and [line.removeprefix("*").split()[0] for line in table[1:]] == names
    assert (
        sum(line.startswith("*") for line in table) == 1 and "the oracle" in table[1] and "not used: ONNX Runtime cannot open" in table[3]
    )


def test_a_plan_from_a_configuration_alone(run: Run, tmp_path: Path) -> None:
    """Of a model far too large to open here; with its table even where the budget does not hold it."""
    (tmp_path / "config.json").write_text(json.dumps(GLM_9B))
    common = ("plan", "--model", tmp_path, "--no-measure", "--precision", "bf16", "--device", "cuda")
    code, out, err = run(*common, "--budget", "24GiB")
    assert (code, err) == (0, "")
    assert re.search(r"decoder weights +17.51 GiB +counted", out) and re.search(r"room for \d+ pages of 632 tokens", out)
    code, out, err = run(*common, "--budget", "16GiB")
    assert code == 1 and "nothing is left" in out and err.count("\n") == 1 and "raise --budget" in err
    code, out, _ = run(*common, "--budget", "24GiB", "--cuda-graphs")
    assert code == 0 and re.search(r"captured decode steps +[\d.]+ GiB +estimated", out)
    code, out, _ = run(*common, "--budget", "16GiB", "--quant", "int4", "--json")
    plan = json.loads(out)
    assert code == 0 and plan["budget"] == 2**34 == sum(s["size"] for s in plan["shares"]) + plan["kv_budget"] and plan["documents"] >= 1


def test_a_plan_by_a_dry_run(run: Run, random_model: Path) -> None:
    code, out, err = run("plan", "--model", random_model, "--budget", "8GiB", "--reserve", "1MiB")
    assert (code, err) == (0, "")
    assert re.search(r"vision workspace, 8 pages +[\d.]+ MiB +measured", out) and re.search(r"reserve +1.0 MiB", out)


GOOD = ["ask", "{folder}/good.txt", "Weight?", "--model", "{model}"]
# name: (arguments, exit code, what the one line must say)
BAD_INPUTS = {
    "missing file": (["ask", "{folder}/none.txt", "?"], 2, "no file"),
    "directory": (["ask", "{folder}", "?"], 2, "is a directory"),
    "empty": (["ask", "{folder}/empty.txt", "?"], 2, "is empty"),
    "blank": (["ask", "{folder}/blank.txt", "?", "--model", "{model}"], 2, "the text is empty"),
    "binary": (["ask", "{folder}/binary.bin", "?"], 2, "not a text file"),
    "not UTF-8": (["ask", "{folder}/latin1.txt", "?"], 2, "not valid UTF-8 (byte 11, line 2)"),
    "over the context": (["ask", "{folder}/long.txt", "?", "--model", "{model}", "--strategy", "whole"], 1, "the model's context is"),
    "over the text limit": (["ask", "{folder}/good.txt", "?", "--text-bytes", "100"], 1, "raise --text-bytes"),
    "over the KV budget": ([*GOOD, "--kv-bytes", "1KiB"], 1, "raise --kv-bytes"),
    "answer over the context": ([*GOOD, "--max-new-tokens", "9000"], 1, "--max-new-tokens"),
    "unknown style": ([*GOOD, "--style", "nope"], 2, "one of: reader, glyph-en-72"),
    "broken style": ([*GOOD, "--style", "{folder}/style.json"], 2, "missing key 'font-path'"),
    "no schema": ([*GOOD, "--json-schema", "{folder}/none.json"], 2, "no file"),
    "a schema that is no JSON": ([*GOOD, "--json-schema", "{folder}/good.txt"], 2, "the JSON schema is not JSON"),
    "a broken pattern": ([*GOOD, "--regex", "("], 2, "unclosed group"),
    "two forms": ([*GOOD, "--regex", "x", "--json-schema", "{folder}/good.txt"], 2, "an answer has one form"),
    "no probability": ([*GOOD, "--top-p", "0"], 2, "top-p must lie above 0"),
    "a server's two forms": (
        [*GOOD[:3], "--server", "127.0.0.1:1", "--regex", "x", "--json-schema", "{folder}/good.txt"],
        2,
        "an answer has one form",
    ),
    "unknown quantisation": ([*GOOD, "--quant", "int2"], 2, "choose one of: int8, int4"),
    "graphs without a GPU": ([*GOOD, "--cuda-graphs"], 2, "(--cuda-graphs) need the decoder on a GPU, and it runs on cpu"),
    "graphs of a plan without a GPU": (["plan", "--no-measure", "--budget", "8GiB", "--cuda-graphs"], 2, "goes with --device cuda"),
    "unknown device": ([*GOOD, "--device", "tpu"], 2, "choose one of: cpu, cuda"),
    "a server's device": ([*GOOD[:3], "--server", "127.0.0.1:1", "--device", "cuda"], 2, "are the server's own"),
    "a server's graphs": ([*GOOD[:3], "--server", "127.0.0.1:1", "--cuda-graphs"], 2, "are the server's own"),
    "a budget too small": (["plan", "--model", "{model}", "--budget", "1MiB"], 1, "raise --budget"),
    "bad budget": (["serve", "--budget", "lots"], 2, "is not a size"),
    "a plan's device": (["plan", "--model", "{model}", "--budget", "1GiB", "--device", "cuda"], 2, "no GPU here for --device cuda"),
    "an unknown precision": ([*GOOD, "--precision", "fp12"], 2, "choose one of: fp32, bf16, fp16"),
    "unknown model": (["ask", "{folder}/good.txt", "?", "--model", "{folder}/none"], 2, "no model directory"),
    "model of another class": (["ask", "{folder}/good.txt", "?", "--model", "{folder}/gpt"], 2, "holds GPT2LMHeadModel"),
    "broken config": (["ask", "{folder}/good.txt", "?", "--model", "{folder}/nojson"], 2, "cannot be read as JSON"),
    "no config": (["ask", "{folder}/good.txt", "?", "--model", "{folder}/bare"], 2, "has no config.json"),
    "no weights": (["ask", "{folder}/good.txt", "?", "--model", "{folder}/weightless"], 2, "has neither model.safetensors nor"),
    "bad size": ([*GOOD, "--kv-bytes", "lots"], 2, "is not a size"),
    "bad temperature": ([*GOOD, "--temperature", "-1"], 2, "temperature must lie between"),
    "bad token count": ([*GOOD, "--max-new-tokens", "0"], 2, "max-new-tokens must be at least 1"),
    "unknown flavour": (["export", "--model", "{model}", "--flavour", "old"], 2, "choose one of: portable, modern"),
    "unknown precision": (["export", "--model", "{model}", "--precision", "int4"], 2, "choose one of: fp32, fp16, bf16"),
    "unknown encoder": ([*GOOD, "--encoder", "gpu"], 2, "choose one of: auto, torch, onnx"),
    "encoder not exported": ([*GOOD, "--encoder", "onnx"], 1, "glyph-rt export"),
    "unknown option": ([*GOOD, "--nope"], 2, "No such option"),
    "missing question": (["ask", "{folder}/good.txt"], 2, "Missing argument"),
    "unknown command": (["answer"], 2, "No such command"),
    "unwritable out": (["render", "{folder}/good.txt", "--out", "{folder}/good.txt", "--model", "{model}"], 2, "choose another --out"),
}


@pytest.fixture
def bad_folder(tmp_path: Path) -> Path:
    """The files that BAD_INPUTS names."""
    contents = {
        "good.txt": TEXT.encode(),
        "empty.txt": b"",
        "blank.txt": b" \n\n",
        "binary.bin": b"\x7fELF\0\0\1",
        "latin1.txt": "one\ntwo caf\u00e9".encode("latin-1"),
        "long.txt": b"words and more words\n" * 50_000,
        "style.json": b'{"dpi": 72}',
        "gpt/config.json": b'{"architectures": ["GPT2LMHeadModel"]}',
        "nojson/config.json": b"{",
        "weightless/config.json": b'{"architectures": ["Glm4vForConditionalGeneration"]}',
    }
    for name in ("gpt", "nojson", "bare", "weightless"):
        (tmp_path / name).mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_is_one_line_and_an_exit_code(run: Run, name: str, bad_folder: Path, random_model: Path) -> None:
    arguments, expected_code, message = BAD_INPUTS[name]
    code, _, err = run(*(argument.format(folder=bad_folder, model=random_model) for argument in arguments))
    assert code == expected_code
    assert len(err.splitlines()) == 1 and err.startswith("glyph-rt: ") and message in err, err


def test_a_bug_is_one_line_too_unless_the_traceback_is_asked_for() -> None:
    code = (
        "import sys; import glyph_rt.cli.doctor as doctor; from glyph_rt.cli import main\n"
        "doctor._box = lambda: 1 / 0; sys.argv = ['glyph-rt', 'doctor']; main()"
    )
    for asked, lines in (({}, 1), ({"GLYPH_RT_TRACEBACK": "1"}, 5)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=600, env=os.environ | asked)
        assert done.returncode == 1
        assert (len(done.stderr.splitlines()) == 1) == (lines == 1)
        assert b"ZeroDivisionError" in done.stderr


def test_a_reader_that_leaves_is_no_error(note: Path, random_model: Path) -> None:
    asking = f"{sys.executable} -c 'from glyph_rt.cli import main; main()' ask {note} 'Weight?' --model {random_model}"
    done = subprocess.run(["bash", "-c", f"{asking} --max-new-tokens 64 | true"], check=True, capture_output=True, timeout=600)
    assert done.stderr == b""


def test_memory_of_a_large_text_is_bounded(tmp_path: Path, random_model: Path) -> None:
    """1 MB that cannot fit is refused from its layout alone: its 2,600 pages are never in memory."""
    text = tmp_path / "large.txt"
    text.write_text("word and word again, line after line, no end\n" * 24_000)
    code = (
        "import sys; from glyph_rt.cli.main import _run; from glyph_rt.memory.limits import peak_rss_bytes\n"
        "sys.argv = ['glyph-rt', 'ask', *sys.argv[1:]]; import glyph_rt.runtime, transformers.models.glm4v.modeling_glm4v\n"
        "before = peak_rss_bytes(); code = _run(); print(code, peak_rss_bytes() - before)"
    )
    command = [sys.executable, "-c", code, text, "?", "--model", random_model, "--strategy", "whole"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=600)
    exit_code, growth = map(int, done.stdout.split())
    assert exit_code == 1 and b"context is" in done.stderr
    assert growth < 128 * 2**20
