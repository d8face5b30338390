#!/usr/bin/env bash
# Makes PyTorch's best CPU set-up under target/pytorch-bench, without root:
#
#   benches/pytorch/setup.sh
#
#   venv/                     torch, transformers, tokenizers, safetensors and, where it runs, zentorch
#   lib/libtcmalloc.so        tcmalloc for LD_PRELOAD: the system's own or Debian's package unpacked
#   lib/libfakeintel.so       makes MKL take its AVX-512 path on AMD
#   ready                     written last; while it names this script's hash, nothing is done again
#
# What could not be had is said on standard error and is not used; without torch the script fails.
# PYTHON names the interpreter (3.11 by default). Needs gcc and binutils.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(cd "$here/../.." && pwd)/target/pytorch-bench
venv=$home/venv lib=$home/lib
python=${PYTHON:-$(command -v python3.11 || command -v python3)}

say() { printf 'setup: %s\n' "$*" >&2; }
# pip complains that torch's dependencies are missing, which is meant.
pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@" 2>>"$home/pip.log"; }

stamp=$(cat "$here/setup.sh" "$here/stand_ins.py" | sha256sum)
if [ -e "$home/ready" ] && [ "$(cat "$home/ready")" = "$stamp" ]; then
    exit 0
fi
rm -rf "$home/ready" "$venv" "$lib" "$home"/*.log
mkdir -p "$lib"
trap 'say "failed; the log of pip ends: $(tail -n 2 "$home/pip.log" 2>/dev/null)"' ERR

say "PyTorch into $venv (about 2 GB, some minutes)"
"$python" -m venv "$venv"
# torch alone, since its own dependencies are several GB of CUDA libraries. The two small ones that it calls while it
# is imported are real; the others get stand-ins.
pip install --no-deps torch==2.13.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
pip install filelock fsspec jinja2 networkx sympy typing-extensions 'setuptools>=77.0.3' numpy \
    transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0
"$venv/bin/python" "$here/stand_ins.py"
"$venv/bin/python" -c 'import torch, transformers; assert torch.ones(2).sum() == 2'

if ! { pip install deprecated && pip install --no-deps zentorch==2.13.0.2 &&
    "$venv/bin/python" -c 'import zentorch' 2>>"$home/pip.log"; }; then
    say "zentorch does not run here and is not used: $(tail -n 1 "$home/pip.log")"
    pip uninstall --yes zentorch || true
fi

# Prints the path of tcmalloc, if it can be had.
tcmalloc() {
    local found
    found=$(/sbin/ldconfig -p | awk '/libtcmalloc_minimal\.so\.4 / { print $NF; exit }')
    if [ -z "$found" ]; then
        mkdir -p "$home/deb" && cd "$home/deb"
        # A fresh container has no list of packages, which only root can get.
        [ -e libtcmalloc-minimal4*.deb ] || apt-get download libtcmalloc-minimal4 ||
            { apt-get update && apt-get download libtcmalloc-minimal4; } || return 0
        dpkg -x libtcmalloc-minimal4*.deb . || return 0
        found=$(find "$home/deb/usr" -name 'libtcmalloc_minimal.so.4' | head -n 1)
    fi
    printf '%s' "$found"
} 2>"$home/tcmalloc.log"
found=$(tcmalloc | tail -n 1)
if [ -n "$found" ]; then
    ln -s "$found" "$lib/libtcmalloc.so"
else
    say "tcmalloc could not be had and is not used: $(grep . "$home/tcmalloc.log" | tail -n 1)"
fi

if ! echo 'int mkl_serv_intel_cpu_true(void) { return 1; }' |
    gcc -shared -fPIC -O1 -x c - -o "$lib/libfakeintel.so"; then
    say "fakeintel could not be compiled and is not used"
fi
printf '%s\n' "$stamp" >"$home/ready"
say "done"
