"""Large buffers are kept, so that a 4K frame costs its page faults once."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, resource, sys, threading
from upscale_client import AsyncUpscaleClient, UpscaleClient
from upscale_client.allocator import keep_large_buffers
if sys.argv[1] == "tuned":
    assert keep_large_buffers()
if sys.argv[1] in ("client", "client that may not"):
    UpscaleClient(keep_buffers=sys.argv[1] == "client").close()
if sys.argv[1] == "asyncio client":
    asyncio.run(AsyncUpscaleClient().close())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def frames():
    for _ in range(10):
        held = bytes(bytearray(24_883_200))
for _ in range(2):
    frames()
    thread = threading.Thread(target=frames)
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_frames_do_not_fault_again_and_again() -> None:
    assert faults("tuned") < faults("plain") / 4


def test_a_client_sees_to_that_unless_it_may_not() -> None:
    plain = faults("client that may not")
    assert faults("client") < plain / 4
    assert faults("asyncio client") < plain / 4


def test_a_client_gives_back_what_it_needed_only_once() -> None:
    program = """
import re
from pathlib import Path
from upscale_client import UpscaleClient
def resident(): return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
UpscaleClient().close()
before = resident()
many = [bytes(bytearray(24_883_200)) for _ in range(40)]
most = resident()
del many
print(most - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    most, kept = map(float, done.stdout.split())
    assert most > 900
    assert kept < 300
