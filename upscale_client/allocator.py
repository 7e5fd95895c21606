"""glibc's allocator, told that large buffers come and go.

By default every buffer of a 4K frame is mapped anew and given back at once, and its 6,000 pages fault one by one, which
costs more than the copies themselves.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1


def keep_large_buffers(most_free_bytes: int = _LARGEST) -> bool:
    """Serve this process's large buffers from memory that is kept; False where the C library is not glibc.

    Args:
        most_free_bytes: unused at the heap's end before some is given back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 1 << 30),
        (_M_TRIM_THRESHOLD, most_free_bytes),
        # A thread's own arena is made of heaps of 64 MB, which come and go like the buffers in them.
        (_M_ARENA_MAX, 1),
    )
    return all(mallopt(name, value) for name, value in settings)
