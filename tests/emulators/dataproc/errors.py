"""Errors as Google's APIs answer them: one code, one message; gRPC and REST say the same."""

from __future__ import annotations

import grpc

HTTP = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class ApiError(Exception):
    """`code` is a name of grpc.StatusCode, such as NOT_FOUND."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.status = grpc.StatusCode[code]
        self.message = message

    @property
    def code(self) -> str:
        return self.status.name

    @property
    def number(self) -> int:
        """Of google.rpc.Code, as in an operation's error."""
        number: int = self.status.value[0]
        return number


class Cut(Exception):
    """The connection ends without an answer."""


class Hang(Exception):
    """There is no answer for so many seconds, or until the client gives up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def not_found(kind: str, name: str) -> ApiError:
    return ApiError("NOT_FOUND", f"Not found: {kind} {name}")
