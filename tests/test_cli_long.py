"""`glyph-rt ask` on texts longer than the window, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import Run, run

__all__ = ["run"]

ASKED = "What is the value of Notice period?"
CONTRACT = Path(__file__).parents[1] / "examples" / "contract.txt"


def test_the_answer_goes_to_standard_output_and_the_reason_to_standard_error(run: Run) -> None:
    code, out, err = run("ask", CONTRACT, ASKED, "--window", 1, "--encoder", "torch")
    reason = "3 pages do not fit the 1-page window; the question names words that stand on few pages"
    assert (code, out, err) == (0, "90 days\n", f"{reason}: retrieve_pages\n")
    code, out, err = run("ask", CONTRACT, ASKED, "--window", 1, "--encoder", "torch", "--strategy", "map_reduce", "--json")
    told = json.loads(out)
    assert (code, err, told["answer"]) == (0, "", "90 days")
    assert told["reading"]["reduced_by"] == "one part says"
    assert [part["pages"] for part in told["reading"]["parts"]] == [[1, 1], [2, 2], [3, 3]]
    (cited,) = told["citations"]
    assert CONTRACT.read_text()[cited["start"] : cited["end"]] == "90 days" and cited["page"] == 3
    assert told["usage"]["pages"] == 3 and told["timings"]["ttft_s"] >= 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strategy", "half"), "no strategy 'half'; choose one of: auto, whole, map_reduce, retrieve_pages"),
        (("--reduce", "vote"), "no way to reduce 'vote'; choose one of: evidence, notes"),
        (("--window", "0"), "window must be at least 1"),
        (("--window", "1", "--strategy", "map_reduce", "--parts", "2"), "the limit is 2; raise --parts or --window, or choose --strategy"),
        (("--server", "127.0.0.1:1", "--window", "2"), "--window, --parts and --reduce are the server's own"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("ask", CONTRACT, ASKED, *arguments)
    assert code != 0 and out == "" and err.count("\n") == 1 and message in err
