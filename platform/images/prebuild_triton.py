"""Compiles a C file of Triton during the build of the container image.

Without this step, Triton would compile the file on every GPU node, and the image would need a
compiler.

The build stage runs `python prebuild_triton.py DIR`, which writes DIR/cuda_utils.so and DIR/cc. At
run time, Triton calls DIR/cc as its C compiler, because CC names this script. The script copies
cuda_utils.so for Triton, and refuses to compile other files.

The C file belongs to triton.backends.nvidia.driver. Triton 3.7 compiles no other C file.

The linker needs libcuda.so.1, but only the driver on a GPU node provides this library. During the
build, a stub library replaces libcuda.so.1. The stub defines the symbols that the C file uses. The
linker would drop a stub without these symbols as unused, and a node could not load cuda_utils.so.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ARTIFACT, COMPILER = "cuda_utils.so", "cc"
SCRIPT = """#!/bin/sh
# Replaces a C compiler: the image build has compiled Triton's cuda_utils.c.
case "$1" in
  */cuda_utils.c) ;;
  *) echo "this image has no C compiler and cannot build $1" >&2; exit 1 ;;
esac
while [ $# -gt 1 ] && [ "$1" != "-o" ]; do shift; done
exec cp "{artifact}" "$2"
"""


def main(target: Path) -> None:
    """Write cuda_utils.so and the replacement compiler to the directory `target`."""
    from triton.backends.nvidia import driver
    from triton.runtime.build import _build

    target = target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source, stub = Path(driver.dirname, "driver.c"), Path(scratch, "stub.c")
        names = sorted(set(re.findall(r"\bcu[A-Z]\w+(?=\()", source.read_text())))
        # The linker needs libcuda.so.1, which only GPU nodes have. This stub takes its place.
        stub.write_text("".join(f"int {name}(void) {{ return 999; }}\n" for name in names))
        compiler = os.environ.get("CC", "gcc")
        options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", f"{scratch}/libcuda.so.1"]
        subprocess.run([compiler, *options, str(stub)], check=True)
        places = [driver.libdevice_dir, scratch]
        built = _build(
            "cuda_utils", str(source), scratch, places, driver.include_dirs, driver.libraries, []
        )
        (target / ARTIFACT).write_bytes(Path(built).read_bytes())
    (target / COMPILER).write_text(SCRIPT.format(artifact=target / ARTIFACT))
    (target / COMPILER).chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
