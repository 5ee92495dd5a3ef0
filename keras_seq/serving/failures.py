"""What a client is told when its request cannot be answered: TensorFlow's codes and texts."""

from __future__ import annotations

from keras_seq.errors import UserError

#: Codes of gRPC and TensorFlow, in order, and the HTTP status that goes with each.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}
#: In the order of their numbers, which begin at 1.
_NUMBERS = list(HTTP_STATUS)
_LONGEST = 1000


class ServingError(Exception):
    """A request that cannot be answered.

    Args:
        code: Its name among gRPC's codes.
        message: What the client reads.
        status: The HTTP status, where it is not the code's own.

    Example:
        >>> error = ServingError("NOT_FOUND", "Could not find any versions of model x")
        >>> error.status, str(error)
        (404, 'Could not find any versions of model x')
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = HTTP_STATUS[code] if status is None else status


def invalid(message: str) -> ServingError:
    """An error of the kind that the client can mend."""
    return ServingError("INVALID_ARGUMENT", message)


def as_serving_error(error: BaseException) -> ServingError:
    """Turns whatever went wrong into what a client is told.

    Args:
        error: What was raised.

    Returns:
        TensorFlow's own errors with their code; anything else as INTERNAL, without details that
        are nobody's business.

    Example:
        >>> as_serving_error(ZeroDivisionError("division by zero")).code
        'INTERNAL'
    """
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)
    if isinstance(number, int) and 0 < number <= len(_NUMBERS):
        # The first lines say what is wrong; below them stands the graph.
        text = str(getattr(error, "message", error)).split("\n\t [[")[0].split("\n\nOriginal")[0]
        return ServingError(_NUMBERS[number - 1], text.strip()[:_LONGEST])
    if isinstance(error, UserError):
        return ServingError("INTERNAL", str(error)[:_LONGEST])
    return ServingError("INTERNAL", f"the server failed at this request: {type(error).__name__}")


def code_number(code: str) -> int:
    """Returns the number of a code, as protocol buffers hold it; 0 is OK.

    Example:
        >>> code_number("OK"), code_number("INVALID_ARGUMENT")
        (0, 3)
    """
    return 0 if code == "OK" else _NUMBERS.index(code) + 1
