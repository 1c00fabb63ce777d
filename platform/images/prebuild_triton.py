"""Compile, while the image is built, the one C file that Triton would compile on every GPU node: the image then needs no compiler.

    build stage   python prebuild_triton.py DIR    -> DIR/cuda_utils.so, DIR/cc
    at run time   CC=DIR/cc: hands out that file when Triton asks for it, and refuses anything else

Linking wants a libcuda.so.1, which comes with the driver of the node; a stub with the same names stands in for it (an empty one would be
left out by the linker, and the file would not load). In Triton 3.7 this file, of triton.backends.nvidia.driver, is all that is built in C.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ARTIFACT, COMPILER = "cuda_utils.so", "cc"
SCRIPT = """#!/bin/sh
# Stands for a C compiler: Triton's cuda_utils.c was compiled when the image was built.
case "$1" in */cuda_utils.c) ;; *) echo "this image has no C compiler and cannot build $1" >&2; exit 1 ;; esac
while [ $# -gt 1 ] && [ "$1" != "-o" ]; do shift; done
exec cp "{artifact}" "$2"
"""


def main(target: Path) -> None:
    """Write both files to `target`."""
    from triton.backends.nvidia import driver
    from triton.runtime.build import _build

    target = target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, stub = Path(driver.dirname, "driver.c"), Path(scratch, "stub.c")
        names = sorted(set(re.findall(r"\bcu[A-Z]\w+(?=\()", source.read_text())))
        stub.write_text("".join(f"int {name}(void) {{ return 999; }}\n" for name in names))
        compiler = os.environ.get("CC", "gcc")
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-Wl,-soname,libcuda.so.1",
                "-o",
                f"{scratch}/libcuda.so.1",
                str(stub),
            ],
            check=True,
        )
        places = [driver.libdevice_dir, scratch]
        built = _build(
            "cuda_utils", str(source), scratch, places, driver.include_dirs, driver.libraries, []
        )
        (target / ARTIFACT).write_bytes(Path(built).read_bytes())
    (target / COMPILER).write_text(SCRIPT.format(artifact=target / ARTIFACT))
    (target / COMPILER).chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
