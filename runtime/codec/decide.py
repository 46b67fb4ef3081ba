"""Decide, by questions of the request."""

from __future__ import annotations

from collections.abc import Sequence

from sprat.codec.common import (
    checked,
    checked_all,
    item_error_messages,
    item_errors,
    timings,
    timings_message,
)
from sprat.errors import InvalidInput
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import (
    Answer,
    DecideResult,
    Decision,
    Label,
    LabelScore,
    Question,
    QuestionKind,
    QuestionSet,
)

_KIND_NUMBERS: dict[QuestionKind, pb.QuestionKind] = {
    "choice": pb.QUESTION_KIND_CHOICE,
    "score": pb.QUESTION_KIND_SCORE,
    "yes_no": pb.QUESTION_KIND_YES_NO,
}
_KINDS: dict[int, QuestionKind] = {int(number): kind for kind, number in _KIND_NUMBERS.items()}


def question_set(message: pb.QuestionSet) -> QuestionSet:
    """The questions that a request brings itself.

    Raises
    ------
    InvalidInput
        For a kind that is none of the enum's.
    """
    return QuestionSet(
        model=message.model,
        questions=tuple(
            Question(
                each.name,
                each.text,
                _kind(each.kind, f"question_set.questions[{index}].kind"),
                tuple(Label(option.name, option.description) for option in each.options),
            )
            for index, each in enumerate(message.questions)
        ),
        instructions=message.instructions,
        correct_prior=message.correct_prior,
        adapter=message.adapter,
    )


def _kind(value: int, field: str) -> QuestionKind:
    if value not in _KINDS:
        raise InvalidInput(
            f"{field}: expected QUESTION_KIND_CHOICE, QUESTION_KIND_SCORE or QUESTION_KIND_YES_NO, "
            f"got {value}",
            field=field,
        )
    return _KINDS[value]


def decide_response(result: DecideResult) -> pb.DecideResponse:
    """A `DecideResult` as a message."""
    message = pb.DecideResponse(
        errors=item_error_messages(result.errors),
        model=pb.ModelVersion(name=result.model, version=result.model_version),
        task_version=result.task_version,
        calibrated=result.calibrated,
        timings=timings_message(result.timings),
        request_id=result.request_id,
    )
    for item in result.items:
        made = message.results.add()
        if item is None:
            continue
        made.input_tokens = item.input_tokens
        made.cached_tokens = item.cached_tokens
        for answer in item.answers:
            one = made.answers.add(
                question=answer.question, option=answer.option, pruned=answer.pruned
            )
            if answer.expected_level is not None:
                one.expected_level = answer.expected_level
            for score in answer.scores:
                one.scores.add(label=score.label, score=score.score)
    return message


def decide_request(
    questions: str | QuestionSet, texts: Sequence[str], partial: bool
) -> pb.DecideRequest:
    """A decide call as a message."""
    request = pb.DecideRequest(texts=checked_all(texts, "texts"), partial_results=partial)
    if isinstance(questions, str):
        request.task = checked(questions, "task")
    else:
        request.question_set.CopyFrom(_question_set_message(questions))
    return request


def _question_set_message(questions: QuestionSet) -> pb.QuestionSet:
    made = pb.QuestionSet(
        model=checked(questions.model, "model"),
        instructions=checked(questions.instructions, "instructions"),
        correct_prior=questions.correct_prior,
        adapter=checked(questions.adapter, "adapter"),
    )
    for index, question in enumerate(questions.questions):
        field = f"questions[{index}]"
        if question.kind not in _KIND_NUMBERS:
            raise InvalidInput(
                f"{field}.kind: expected choice, score or yes_no, got {question.kind!r}",
                field=f"{field}.kind",
            )
        one = made.questions.add(
            name=checked(question.name, f"{field}.name"),
            text=checked(question.text, f"{field}.text"),
            kind=_KIND_NUMBERS[question.kind],
        )
        for number, option in enumerate(question.options):
            where = f"{field}.options[{number}]"
            one.options.add(
                name=checked(option.name, where), description=checked(option.description, where)
            )
    return made


def decide_result(response: pb.DecideResponse) -> DecideResult:
    """A message as a `DecideResult`."""
    failed = {error.index for error in response.errors}
    return DecideResult(
        items=tuple(
            None if index in failed else _decision(item)
            for index, item in enumerate(response.results)
        ),
        errors=item_errors(response.errors),
        model=response.model.name,
        model_version=response.model.version,
        task_version=response.task_version,
        calibrated=response.calibrated,
        timings=timings(response.timings),
        request_id=response.request_id,
    )


def _decision(message: pb.Decision) -> Decision:
    return Decision(
        answers=tuple(
            Answer(
                question=answer.question,
                option=answer.option,
                scores=tuple(LabelScore(s.label, s.score) for s in answer.scores),
                expected_level=(
                    answer.expected_level if answer.HasField("expected_level") else None
                ),
                pruned=answer.pruned,
            )
            for answer in message.answers
        ),
        input_tokens=message.input_tokens,
        cached_tokens=message.cached_tokens,
    )
