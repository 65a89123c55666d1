"""Train the embedded reader on a GPU, with every core making pages: `bash bench/gpu.sh train`, see there.

    python bench/gpu_train.py --out DIR [--minutes 8] [--start MODEL|RUN] [--run DIR] [--style NAME|FILE] [--scale 32] [--device cpu]

Goes on from --run, the folder of a run that was cut short, or from the weights of --start, or from scratch. Leaves the model in
DIR/model, the state to go on from in DIR/state.pt and the curve in DIR/log.jsonl.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from glyph_rt.export.reader.train import Options, train

from glyph_rt.typeset import load_style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole schedule; a lent machine runs ten at a time")
    parser.add_argument("--start", help="a model directory, or the folder of a run, whose weights to go on from")
    parser.add_argument("--run", type=Path, help="the folder of a run to resume; it is copied")
    parser.add_argument("--style", default="reader")
    parser.add_argument("--scale", type=int, default=32, help="times the documents in every batch")
    parser.add_argument("--makers", type=int, default=max(1, len(os.sched_getaffinity(0)) - 2), help="processes that make pages")
    parser.add_argument("--device", default="cuda")
    told = parser.parse_args()
    if told.run is not None:
        shutil.copytree(told.run, told.out, dirs_exist_ok=True)
    options = Options(told.minutes, start=told.start, replicas=1, device=told.device, makers=told.makers, scale=told.scale)
    train(told.out, options, load_style(told.style))
    print((told.out / "log.jsonl").read_text(encoding="utf-8")[-4000:])


if __name__ == "__main__":
    main()
