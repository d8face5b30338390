"""Compiles the kernels with seeded bugs again: compile.py FOLDER, where FOLDER holds libnvrtc.so.13 of version 13.0.88."""

import ctypes
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent / "seeded"


def check(code, what):
    if code != 0:
        sys.exit(f"{what}: NVRTC's code {code}")


def compile_file(nvrtc, name, source, header):
    program = ctypes.c_void_p()
    texts, names = (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"common.cuh")
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 1, texts, names), name)
    options = [b"--gpu-architecture=compute_80", b"-lineinfo"]
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    if log.value.strip():
        print(log.value.decode(), file=sys.stderr)
    check(code, name)
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, text)
    # NVRTC puts the working folder before the names of files.
    return re.sub(rb'(\.file\s+\d+ )".*/', rb'\1"', text.value)


def main():
    folder = pathlib.Path(sys.argv[1])
    ctypes.CDLL(str(folder / "libnvrtc-builtins.so.13.0"), mode=ctypes.RTLD_GLOBAL)
    nvrtc = ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    header = (HERE / "common.cuh").read_bytes()
    for path in sorted(HERE.glob("*.cu")):
        path.with_suffix(".ptx").write_bytes(compile_file(nvrtc, path.name, path.read_bytes(), header))


main()
