"""What is wanted of a frame, as far as its message alone can tell."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import RequestInvalidError
from service.scheduling.jobs import Priority
from upscale_client.v1 import upscale_pb2 as pb

PROFILES = {pb.PROFILE_CLEAN: "clean", pb.PROFILE_COMPRESSED: "compressed"}
PRIORITIES = {pb.PRIORITY_LIVE: Priority.LIVE, pb.PRIORITY_OFFLINE: Priority.OFFLINE}


@dataclass(frozen=True)
class Wish:
    """What is wanted of a frame: a request's fields, or a session's."""

    model: str
    scale: int
    profile: str
    output: pb.OutputFormat
    budget_s: float | None
    priority: Priority
    step_down: bool
    """Whether a lesser model may answer, if this one cannot within the budget."""

    @classmethod
    def of(cls, message: pb.UpscaleRequest | pb.StreamOptions) -> Wish:
        """What the message says.

        Raises:
            RequestInvalidError: a field makes no sense.
        """
        budget_s = message.budget.ToNanoseconds() / 1e9 if message.HasField("budget") else None
        if budget_s is not None and budget_s <= 0:
            raise RequestInvalidError(f"budget is {budget_s:g} s; it must be more than 0, or absent")
        if message.profile not in (pb.PROFILE_UNSPECIFIED, *PROFILES):
            accepted = ", ".join(pb.Profile.Name(known) for known in PROFILES)
            raise RequestInvalidError(f"profile is {message.profile} (unknown); accepted are: {accepted}")
        if message.priority not in (pb.PRIORITY_UNSPECIFIED, *PRIORITIES):
            accepted = ", ".join(pb.Priority.Name(known) for known in PRIORITIES)
            raise RequestInvalidError(f"priority is {message.priority} (unknown); accepted are: {accepted}")
        return cls(
            model=message.model,
            scale=message.scale,
            profile=PROFILES.get(message.profile, ""),
            output=message.output,
            budget_s=budget_s,
            priority=PRIORITIES.get(message.priority, Priority.LIVE),
            step_down=message.step_down,
        )
