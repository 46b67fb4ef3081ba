"""What the messages of every verb have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import Message as Proto

from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import ItemError, Timings, Truncation

_TRUNCATIONS: dict[int, Truncation] = {
    pb.TRUNCATION_UNSPECIFIED: "refuse",
    pb.TRUNCATION_REFUSE: "refuse",
    pb.TRUNCATION_END: "truncate",
}
_TRUNCATION_NUMBERS: dict[Truncation, pb.Truncation] = {
    "refuse": pb.TRUNCATION_REFUSE,
    "truncate": pb.TRUNCATION_END,
}


def truncation(value: int) -> Truncation:
    """The policy that a request asks for.

    Raises
    ------
    InvalidInput
        For a number that the enum does not have.
    """
    try:
        return _TRUNCATIONS[value]
    except KeyError:
        raise InvalidInput(f"truncation: unknown value {value}", field="truncation") from None


def truncation_number(policy: Truncation) -> pb.Truncation:
    """The number of a policy on the wire."""
    number = _TRUNCATION_NUMBERS.get(policy)
    if number is None:
        known = " or ".join(_TRUNCATION_NUMBERS)
        raise InvalidInput(f"truncation: expected {known}", field="truncation")
    return number


def timings_message(timings: Timings) -> pb.Timings:
    """Timings as a message."""
    return pb.Timings(
        tokenize_ns=timings.tokenize_ns,
        queue_ns=timings.queue_ns,
        infer_ns=timings.infer_ns,
        total_ns=timings.total_ns,
    )


def timings(message: pb.Timings) -> Timings:
    """A message as `Timings`."""
    return Timings(message.tokenize_ns, message.queue_ns, message.infer_ns, message.total_ns)


def item_error_messages(errors: Iterable[ItemError]) -> list[pb.ItemError]:
    """Errors of single inputs as messages."""
    return [pb.ItemError(index=e.index, reason=e.reason, message=e.message) for e in errors]


def item_errors(messages: Iterable[pb.ItemError]) -> tuple[ItemError, ...]:
    """Messages as errors of single inputs."""
    return tuple(ItemError(e.index, e.reason, e.message) for e in messages)


def checked(text: str, field: str) -> str:
    """The text, if it can travel: a str without lone surrogates, which UTF-8 cannot carry."""
    if not isinstance(text, str):
        raise InvalidInput(f"{field}: expected str, got {type(text).__name__}", field=field)
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{field}: lone surrogate at character {error.start}", field=field
            ) from None
    return text


def checked_all(texts: Sequence[str], field: str) -> list[str]:
    """The texts, if they can travel: see `checked`."""
    if isinstance(texts, str):
        raise InvalidInput(f"{field}: expected a sequence of texts, got one str", field=field)
    return [checked(text, f"{field}[{index}]") for index, text in enumerate(texts)]


def set_number(message: Proto, name: str, value: float | None, field: str) -> None:
    """Set a field unless the value is None; refuse what its type on the wire cannot hold."""
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError):
        shown = value if isinstance(value, (int, float)) else type(value).__name__
        raise InvalidInput(f"{field}: {shown} is out of range", field=field) from None
