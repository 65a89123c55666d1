#!/usr/bin/env bash
# Every GPU check in one call, from a plain checkout, without installing and without a network.
#
#   bash bench/gpu.sh                               # on a GPU; writes gpu.json, gpu_tower.json, gpu_decode.json and gpu_tests.txt into $OUT, or ./
#   bash bench/gpu.sh --device cpu                  # a dry run where there is none
#   bash bench/gpu.sh train --minutes 8             # instead: train the embedded reader there (bench/gpu_train.py), into $OUT/reader
#
# Needs Python 3.11 or later with torch 2.11 or later (CUDA), transformers 5.17 or later, numpy, safetensors, tokenizers, regex, pillow,
# jinja2, onnx, onnxscript, onnxruntime, pytest, hypothesis and nanobind; and cmake, ninja or make, and a C++ compiler.
#
# What that Python lacks is carried as wheels, in .whl/ or the folder that WHEELS names, and put on the path before anything else:
#   freetype-py 2.5.1, uharfbuzz 0.57 or later, python-bidi 0.6    small, always needed
#   onnxruntime-gpu 1.31 (256 MB)      for ONNX Runtime on CUDA 13; the CUDA libraries it needs are torch's own
#   tensorrt-rtx (three wheels, 100 MB; GeForce and RTX cards only), pydantic with its own needs, pyyaml, typer     for engines
#   pycuda                             for the other device layer
# Checks whose package is missing are skipped, and the reports say so. It takes about ten minutes on an H200 with 16 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=$(cd "${OUT:-.}" && pwd)
wheels=${WHEELS:-.whl}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
if compgen -G "$wheels/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$tree/site" "$wheels"/*.whl
fi
# The installed layout: export/ lies inside the package, and the native core beside the typesetter.
cp -r glyph_rt tests bench examples pyproject.toml "$tree/"
cp -r export "$tree/glyph_rt/export"
cp -r engines "$tree/glyph_rt/engines"
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S . -B "$tree/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$(command -v "$python")" \
  -Dnanobind_DIR="$("$python" -m nanobind --cmake_dir)" >"$tree/cmake.log" 2>&1 || { cat "$tree/cmake.log"; exit 1; }
cmake --build "$tree/build" --parallel >"$tree/build.log" 2>&1 || { cat "$tree/build.log"; exit 1; }
cp "$tree"/build/_raster*.so "$tree/glyph_rt/typeset/"
cp "$tree"/build/_step*.so "$tree/glyph_rt/language/"
cd "$tree"  # so that the checkout's own glyph_rt, which lacks both, is not in the way
export PYTHONPATH="$tree:$tree/site" XDG_CACHE_HOME="$tree/cache" XDG_CONFIG_HOME="$tree/config"
if [[ ${1:-} == train ]]; then
  "$python" bench/gpu_train.py --out "$out/reader" "${@:2}"
  exit  # by way of the trap, which removes the tree
fi
failed=0
"$python" -m pytest tests/vision/test_on_gpu.py tests/language/test_on_gpu.py -q -p no:cacheprovider 2>&1 | tee "$out/gpu_tests.txt" || failed=1
"$python" bench/gpu_checks.py --json "$out/gpu.json" "$@" || failed=1
"$python" bench/gpu_tower.py --json "$out/gpu_tower.json" "$@" || failed=1
"$python" bench/gpu_decode.py --json "$out/gpu_decode.json" "$@" || failed=1
exit $failed
