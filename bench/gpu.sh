#!/usr/bin/env bash
# Every GPU check in one call, from a plain checkout, without installing and without a network.
#
#   bash bench/gpu.sh            # writes $OUT/gpu.json, or ./gpu.json where OUT is unset
#
# Needs a Python with torch (CUDA), transformers, numpy, nanobind, freetype-py, uharfbuzz and python-bidi, and cmake and a C++ compiler.
# Packages carried as wheels in .whl/ are put on the path first.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
if compgen -G '.whl/*.whl' >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$tree/site" .whl/*.whl
fi
# The installed layout: export/ lies inside the package, and the native core beside the typesetter.
cp -r glyph_rt "$tree/glyph_rt"
cp -r export "$tree/glyph_rt/export"
cp -r engines "$tree/glyph_rt/engines"
cmake -S . -B "$tree/build" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" >"$tree/cmake.log" || { cat "$tree/cmake.log"; exit 1; }
cmake --build "$tree/build" --parallel >"$tree/build.log" || { cat "$tree/build.log"; exit 1; }
cp "$tree"/build/_raster*.so "$tree/glyph_rt/typeset/"
PYTHONPATH="$tree:$tree/site" "$python" bench/gpu_checks.py --json "${OUT:-.}/gpu.json" "$@"
