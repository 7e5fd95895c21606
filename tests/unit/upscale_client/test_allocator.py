"""Large buffers are kept, so that a 4K frame costs its page faults once."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
from upscale_client.allocator import keep_large_buffers
if sys.argv[1] == "tuned":
    assert keep_large_buffers()
for _ in range(20):
    bytes(bytearray(24_883_200))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_frames_do_not_fault_again_and_again() -> None:
    assert faults("tuned") < faults("plain") / 4
