"""What the service may answer instead of a frame.

UpscaleError
├── InvalidRequestError    the frame or another field is wrong; sending it again will not help
├── ModelNotFoundError     no such model, scale or profile is served
├── MessageTooLargeError   the frame is larger than the service takes
├── UnauthenticatedError   the service needs a token or key, and this one is not valid
├── BudgetSpentError       the budget or the timeout ran out
├── OverloadedError        no room now; try again later
├── BudgetTooSmallError    the budget is shorter than the network takes; trying again will not help
├── NotOfferedError        the service's operator has turned this off
├── UnavailableError       the service or its inference server cannot be reached; try again later
└── InternalError          the service's fault
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class UpscaleError(Exception):
    """Base of the tree.

    Attributes:
        code: the gRPC status.
        reason: the service's machine-readable reason (see upscale.proto), or "" where the service did not speak.
        retry_after_s: seconds after which trying again may help; None where the service does not know.
        request_id: names this failure in the service's log; "" where the service did not speak. It is the trace's id if
            the call was part of one.
        retryable: whether trying again later may help at all.
    """

    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        code: grpc.StatusCode,
        reason: str = "",
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        if request_id:
            self.add_note(f"request id: {request_id}")


class InvalidRequestError(UpscaleError):
    """The frame or another field of the request is wrong; sending it again will not help."""


class ModelNotFoundError(UpscaleError):
    """No such model, scale or profile is served."""


class MessageTooLargeError(UpscaleError):
    """The frame is larger than the service takes."""


class UnauthenticatedError(UpscaleError):
    """The service needs a token or a key, and there was none that is valid."""


class BudgetSpentError(UpscaleError):
    """The budget or the timeout ran out."""


class OverloadedError(UpscaleError):
    """There is no room now; try again in `retry_after_s` seconds, or later where that is None."""

    retryable = True


class BudgetTooSmallError(UpscaleError):
    """The budget is shorter than the network takes on an idle service: trying again will not help.

    A larger budget, a lesser model or `step_down` will.
    """


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
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: BudgetSpentError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: NotOfferedError,
}
# The code says what kind of error it is, but for these.
_BY_REASON: dict[str, type[UpscaleError]] = {"BUDGET_TOO_SMALL": BudgetTooSmallError}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc(error: grpc.RpcError) -> UpscaleError:
    """The error of this tree for a failed call."""
    code = error.code()
    message = error.details() or code.name
    trailing: Any = error.trailing_metadata() or ()
    details = next((value for key, value in trailing if key == _DETAILS_KEY), None)
    reason, retry_after_s, request_id = _details(details)
    kind = _kind(code, reason)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and not reason and "larger than max" in message:
        kind = MessageTooLargeError  # gRPC's own refusal has no reason
    if code is grpc.StatusCode.UNKNOWN and not reason:
        # The service never says so: the connection broke, at its end or in between, in the middle of an answer.
        kind = UnavailableError
    return kind(message, code, reason, retry_after_s, request_id)


def from_status(number: int, message: str, reason: str, retry_after_s: float | None, request_id: str) -> UpscaleError:
    """The error of this tree for a frame of a stream; `number` is a google.rpc.Code."""
    code = _CODES.get(number, grpc.StatusCode.UNKNOWN)
    return _kind(code, reason)(message, code, reason, retry_after_s, request_id)


def _kind(code: grpc.StatusCode, reason: str) -> type[UpscaleError]:
    return _BY_REASON.get(reason) or _BY_CODE.get(code, InternalError)


def _details(data: str | bytes | None) -> tuple[str, float | None, str]:
    """The reason, the seconds to wait, and the request's id in a status' details."""
    reason, retry_after_s, request_id = "", None, ""
    if not isinstance(data, bytes):
        return reason, retry_after_s, request_id
    info, retry, request = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
    # What stands between may have put anything there; the code and the message hold all the same.
    with contextlib.suppress(DecodeError):
        for detail in status_pb2.Status.FromString(data).details:
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry) and retry.HasField("retry_delay"):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif detail.Unpack(request):
                request_id = request.request_id
    return reason, retry_after_s, request_id
