#!/usr/bin/env bash
# Runs the PTX vectors through the look-alike driver, by Python's ctypes: a program that knows nothing of the software GPU.
#
#   emulator/tests/run-vectors.sh [OPTIONS OF run_ptx.py]      for example --filter matmul -v
#
# Needs cargo and Python 3.9 or later with pip. numpy comes into a virtual environment under the target folder, where it
# stays; nothing is installed on the machine.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
environment=$target/vectors-python
numpy='numpy>=1.26,<3'

cargo build --release --package software-gpu-driver
if ! "$environment/bin/python" -c 'import numpy' 2>/dev/null; then
    # Made beside its place: a run that is interrupted leaves no half of one behind.
    rm -rf "$environment" "$environment.new"
    python3 -m venv "$environment.new"
    "$environment.new/bin/python" -m pip install --quiet --disable-pip-version-check "$numpy"
    mv "$environment.new" "$environment"
fi
exec "$environment/bin/python" emulator/tests/vectors/run_ptx.py "$target/release/libcuda.so" "$@"
