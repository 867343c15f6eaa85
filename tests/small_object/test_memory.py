"""Memory that was freed stays in the process; the kernel's count of page faults is the reference."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc")

SIZE = 256 << 20  # bytes, more than any threshold that glibc sets by itself
PROGRAM = f"""
import resource, sys
{{start}}
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray({SIZE})
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(start: str, **environment: str) -> int:
    """Return the page faults of the last of four allocations."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    program = [sys.executable, "-c", PROGRAM.format(start=start)]
    output = subprocess.run(program, env=plain | environment, capture_output=True, text=True, check=True).stdout
    return int(output.split()[-1])


KEEP = "from small_object.memory import keep_freed_memory; assert keep_freed_memory() is {}"


def test_the_next_pass_takes_no_page_faults() -> None:
    assert count_faults("") > 50  # huge pages of 2 MiB at most
    assert count_faults(KEEP.format(True)) < 50


@pytest.mark.parametrize("given", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=9"}])
def test_what_the_environment_says_stands(given: dict[str, str]) -> None:
    assert count_faults(KEEP.format(False), **given) > 50


@pytest.mark.slow
def test_choosing_the_cpu_keeps_it() -> None:
    assert count_faults("from ultralytics.utils.torch_utils import select_device; select_device('cpu')") < 50
