"""Between proto messages and values, both ways: one module a verb. Nothing else knows both."""

from sprat.codec.classify import (
    choose_request,
    classify_request,
    classify_response,
    classify_result,
    label_set,
)
from sprat.codec.common import truncation
from sprat.codec.decide import decide_request, decide_response, decide_result, question_set
from sprat.codec.embed import embed_request, embed_response, embed_result
from sprat.codec.extract import (
    extract_request,
    extract_response,
    extract_result,
    extract_spec,
    long_input,
)
from sprat.codec.feedback import feedback_request
from sprat.codec.generate import chunk, generate_request, generate_response, prompt, sampling
from sprat.codec.listing import (
    list_models_response,
    list_tasks_response,
    model_infos,
    task_infos,
    tokenize_request,
    tokenize_response,
    tokenize_result,
)
from sprat.codec.moderate import moderate_request, moderate_response, moderate_result
from sprat.codec.route import route_request, route_response, route_result, route_set
from sprat.codec.tiers import effort
from sprat.codec.transform import (
    transform_chunk,
    transform_request,
    transform_response,
    transform_spec,
)

__all__ = [
    "choose_request",
    "chunk",
    "classify_request",
    "classify_response",
    "classify_result",
    "decide_request",
    "decide_response",
    "decide_result",
    "effort",
    "embed_request",
    "embed_response",
    "embed_result",
    "extract_request",
    "extract_response",
    "extract_result",
    "extract_spec",
    "feedback_request",
    "generate_request",
    "generate_response",
    "label_set",
    "list_models_response",
    "list_tasks_response",
    "long_input",
    "model_infos",
    "moderate_request",
    "moderate_response",
    "moderate_result",
    "prompt",
    "question_set",
    "route_request",
    "route_response",
    "route_result",
    "route_set",
    "sampling",
    "task_infos",
    "tokenize_request",
    "tokenize_response",
    "tokenize_result",
    "transform_chunk",
    "transform_request",
    "transform_response",
    "transform_spec",
    "truncation",
]
