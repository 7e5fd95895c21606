"""glibc's allocator, told that large buffers come and go.

By default every buffer of a 4K frame is mapped anew and given back at once, and its 6,000 pages fault one by one, which
costs more than the copies themselves.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
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
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, most_free_bytes))
