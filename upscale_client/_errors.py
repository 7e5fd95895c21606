"""What the service may answer instead of a frame.

UpscaleError
├── InvalidRequestError    the frame or another field is wrong; sending it again will not help
├── ModelNotFoundError     no such model, scale or profile is served
├── MessageTooLargeError   the frame is larger than the service takes
├── BudgetSpentError       the budget or the timeout ran out
├── OverloadedError        no room now; try again later
├── NotOfferedError        the service's operator has turned this off
├── UnavailableError       the service or its inference server cannot be reached; try again later
└── InternalError          the service's fault
"""

from __future__ import annotations

from typing import Any, ClassVar

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class UpscaleError(Exception):
    """Base of the tree.

    Attributes:
        code: the gRPC status.
        reason: the service's machine-readable reason (see upscale.proto), or "" where the service did not speak.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, code: grpc.StatusCode, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class InvalidRequestError(UpscaleError):
    """The frame or another field of the request is wrong; sending it again will not help."""


class ModelNotFoundError(UpscaleError):
    """No such model, scale or profile is served."""


class MessageTooLargeError(UpscaleError):
    """The frame is larger than the service takes."""


class BudgetSpentError(UpscaleError):
    """The budget or the timeout ran out."""


class OverloadedError(UpscaleError):
    """There is no room now; try again later."""

    retryable = True


class UnavailableError(UpscaleError):
    """The service or its inference server cannot be reached; try again later."""

    retryable = True


class NotOfferedError(UpscaleError):
    """The service's operator has turned this off."""


class InternalError(UpscaleError):
    """The service's fault."""


_BY_CODE: dict[grpc.StatusCode, type[UpscaleError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.DEADLINE_EXCEEDED: BudgetSpentError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: NotOfferedError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc(error: grpc.RpcError) -> UpscaleError:
    """The error of this tree for a failed call."""
    code = error.code()
    message = error.details() or code.name
    trailing: Any = error.trailing_metadata() or ()
    details = next((value for key, value in trailing if key == _DETAILS_KEY), None)
    reason = _reason(details)
    kind = _BY_CODE.get(code, InternalError)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason and "larger than max" in message:
        kind = MessageTooLargeError  # gRPC's own refusal has no reason
    return kind(message, code, reason)


def from_status(number: int, message: str, reason: str) -> UpscaleError:
    """The error of this tree for a frame of a stream; `number` is a google.rpc.Code."""
    code = _CODES.get(number, grpc.StatusCode.UNKNOWN)
    return _BY_CODE.get(code, InternalError)(message, code, reason)


def _reason(details: str | bytes | None) -> str:
    if not isinstance(details, bytes):
        return ""
    for detail in status_pb2.Status.FromString(details).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""
