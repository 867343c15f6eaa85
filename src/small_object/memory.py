"""Keeps freed memory: by default, the C library returns large blocks to the system, and taking them back costs time."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees, for the rest of its life.

    By default, glibc returns the activations of a model on the CPU to the system after each pass. The next pass then
    takes a page fault for every 4 KiB of them. In return, the process holds the most memory that it ever needed.

    Returns:
        Whether it does: not if the C library is not glibc, or environment variables tune its `malloc`.

    References:
        mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    tuned = any(name.startswith("MALLOC_") for name in os.environ)
    if tuned or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, MAX_INT))
