"""Where frames live between decoding and encoding: pieces of shared memory, which Triton reads and writes.

A lane is one region for frames of one format. Its inputs lie side by side and so do its outputs, so frames in
neighbouring slots are a batch without a copy. A frame that joins a batch takes the slot behind the last one's; one that
begins a batch takes a slot with room behind it. A client's own region (`service.regions`) is used in the same way,
wherever the client put its frames.

A slot is held by whoever may touch its memory: the call it belongs to, a codec thread, the batch in Triton. It is free
when the last of them lets go. If a batch ends without an answer, Triton may still write: its regions are retired, never
reused.
"""

from service.frames.formats import FrameFormat, PixelFormat
from service.frames.memory import SHARED_MEMORY, Region, Span
from service.frames.slots import Slot, SlotBatch
from service.frames.store import FrameStore

__all__ = ["SHARED_MEMORY", "FrameFormat", "FrameStore", "PixelFormat", "Region", "Slot", "SlotBatch", "Span"]
