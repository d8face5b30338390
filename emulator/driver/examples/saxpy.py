"""A CUDA program in Python, by ctypes alone, that knows nothing of the software GPU.

  python3 saxpy.py [fault|leak|exit N]

It runs on a real GPU as it stands, and without one by `software-gpu run python3 saxpy.py`.
"""

import array
import ctypes
import pathlib
import sys

cuda = ctypes.CDLL("libcuda.so.1")


def call(name, *arguments):
    code = getattr(cuda, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(text))
        raise RuntimeError(f"{name}: {code} {text.value.decode()}")


def main():
    mode = sys.argv[1] if len(sys.argv) > 1 else ""
    count = 1000
    call("cuInit", 0)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuCtxCreate_v2", ctypes.byref(context), 0, device)

    image = (pathlib.Path(__file__).parent / "saxpy.ptx").read_bytes() + b"\0"
    module, saxpy = ctypes.c_void_p(), ctypes.c_void_p()
    call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
    call("cuModuleGetFunction", ctypes.byref(saxpy), module, b"saxpy")

    x = array.array("f", range(count))
    y = array.array("f", [1.0] * count)
    buffers = []
    for values in (y, x):
        pointer = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(4 * count))
        call("cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(values.buffer_info()[0]), ctypes.c_size_t(4 * count))
        buffers.append(pointer)

    # The faulty mode tells the kernel of one value more than there are.
    parameters = [buffers[0], buffers[1], ctypes.c_float(3), ctypes.c_uint32(count + (mode == "fault"))]
    pointers = (ctypes.c_void_p * 5)(*[ctypes.addressof(value) for value in parameters], None)
    call("cuLaunchKernel", saxpy, 8, 1, 1, 128, 1, 1, 0, None, pointers, None)
    call("cuCtxSynchronize")
    call("cuMemcpyDtoH_v2", ctypes.c_void_p(y.buffer_info()[0]), buffers[0], ctypes.c_size_t(4 * count))
    assert all(y[i] == 3 * i + 1 for i in range(count)), "wrong values"

    if mode != "leak":
        for pointer in buffers:
            call("cuMemFree_v2", pointer)
    call("cuModuleUnload", module)
    call("cuCtxDestroy_v2", context)
    print("ok")
    if mode == "exit":
        sys.exit(int(sys.argv[2]))


main()
