"""Makes stand-ins for CUDA libraries, so that torch's common build can be imported for CPU use without them.

    venv/bin/python stand_ins.py

- torch's libraries name CUDA libraries that the loader must find, with versioned symbols; on a CPU none is called.
- For each that is missing a C file is compiled, with gcc, that defines the symbols torch asks of it, under their
  versions. Every function returns 100 (cudaErrorNoDevice).
- A symbol without a version does not say which library it comes from; all of those go into one of them, since the
  loader looks in every library.
"""
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

CUDA = re.compile(r"lib(cu|nccl|nv)\w*\.so\.\d+")
CUDA_SYMBOL = re.compile(r"(__)?(cu|nccl|nv)")
REAL = ("libcuda.so", "libcudart.so", "libcupti.so")  # the driver, only dlopened; two that come as packages


def objdump(option, library):
    return subprocess.run(["objdump", option, library], check=True, capture_output=True, text=True).stdout


def read_needs(library):
    """The libraries that `library` needs, and {version: library} of the versions it asks for."""
    needed, versions, source = set(), {}, None
    for line in objdump("-p", library).splitlines():
        if match := re.match(r"\s+NEEDED\s+(\S+)", line):
            needed.add(match[1])
        elif match := re.match(r"\s+required from (\S+):", line):
            source = match[1]
        elif source and (match := re.match(r"\s+0x\w+ 0x\w+ \d+ (\S+)", line)):
            versions[match[1]] = source
        else:
            source = None
    return needed, versions


def read_symbols(library):
    """The names that `library` defines, and the (name, version or None) it wants from others."""
    defined, wanted = set(), set()
    for line in objdump("-T", library).splitlines():
        match = re.match(r"[0-9a-f]+ .{7} (\S+)\s+[0-9a-f]+\s+(?:\(?([\w.]+)\)?\s+)?(\S+)$", line)
        if not match:
            continue
        section, version, name = match.groups()
        version = None if version == "Base" else version
        if section == "*UND*":
            wanted.add((name, version))
        else:
            defined.add(name)
    return defined, wanted


def compile_stand_in(path, symbols):
    """symbols: {version or None: names}."""
    with tempfile.TemporaryDirectory() as folder:
        source, script = Path(folder, "stand_in.c"), Path(folder, "versions.map")
        names = sorted({name for group in symbols.values() for name in group})
        source.write_text("int stand_in;\n" + "".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
        script.write_text("".join(
            f"{version} {{ {'global: ' + '; '.join(sorted(group)) + ';' if group else ''} }};\n"
            for version, group in sorted(symbols.items(), key=str) if version))
        command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{path.name}", source,
                   "-o", path]
        if script.stat().st_size:
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def main():
    # The module is found, not imported: that fails until the stand-ins are there.
    folder = Path(importlib.util.find_spec("torch").origin).parent / "lib"
    missing, version_home, defined, wanted = set(), {}, set(), set()
    for library in sorted(folder.glob("*.so")):
        needed, versions = read_needs(library)
        missing |= needed | set(versions.values())
        version_home |= versions
        own, others = read_symbols(library)
        defined |= own
        wanted |= others
    missing = sorted(name for name in missing
                     if CUDA.fullmatch(name) and not name.startswith(REAL) and not (folder / name).exists())
    if not missing:
        return
    symbols = {name: defaultdict(set) for name in missing}
    for version, library in version_home.items():
        if library in symbols:
            symbols[library][version]  # a version without symbols must exist too
    for name, version in wanted:
        if version_home.get(version) in symbols:
            symbols[version_home[version]][version].add(name)
        elif version is None and name not in defined and CUDA_SYMBOL.match(name):
            symbols[missing[0]][None].add(name)
    for name in missing:
        compile_stand_in(folder / name, symbols[name])
    print(f"stand-ins for {', '.join(missing)}", file=sys.stderr)


if __name__ == "__main__":
    main()
