"""Feedback on an answer."""

from __future__ import annotations

from sprat.codec.common import checked, set_number
from sprat.proto.v1 import sprat_pb2 as pb


def feedback_request(request_id: str, label: str, item: int) -> pb.FeedbackRequest:
    """A feedback call as a message."""
    request = pb.FeedbackRequest(
        request_id=checked(request_id, "request_id"), label=checked(label, "label")
    )
    set_number(request, "item", item, "item")
    return request
