#!/usr/bin/env bash
# Writes requirements.txt from pyproject.toml: every package pinned, for Python 3.11 to 3.13 on any platform.
# Pins that still fit are kept; `tools/pin.sh --upgrade` moves all of them to the newest versions.
# torch brings its own CUDA packages where it needs them, so none is listed.
set -euo pipefail
cd "$(dirname "$0")/.."
cp requirements.txt requirements.txt.new # uv prefers the versions that its output file already names
uv pip compile pyproject.toml --extra course --extra book --extra dev --universal --python-version 3.11 \
  --constraint <(echo "torch==2.13.0") --no-annotate --no-header --quiet --output-file requirements.txt.new "$@"
{
  echo "# Pinned for Python 3.11-3.13. Made from pyproject.toml by: tools/pin.sh"
  grep -vE '^(nvidia-|triton|cuda-)' requirements.txt.new
} >requirements.txt
rm requirements.txt.new
