"""Named tasks of generative models: what requests bring themselves, kept by the server.

A named task is answered by the very code that answers a request with a spec of its own. Its spec
is checked when it is loaded, so that a server with a bad one does not start.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from sprat.errors import ConfigError, InvalidInput
from sprat.model import GenerativeModel
from sprat.model.instructed import PROBES
from sprat.scheduler import Mailbox
from sprat.tasks import choose, decide, extract, route, transform
from sprat.text.schema import Schema
from sprat.values import (
    ExtractSpec,
    LabelSet,
    QuestionSet,
    RouteSet,
    TaskInfo,
    TransformSpec,
)

Spec = LabelSet | RouteSet | QuestionSet | ExtractSpec | TransformSpec

VERBS: dict[type, str] = {
    LabelSet: "classify",
    RouteSet: "route",
    QuestionSet: "decide",
    ExtractSpec: "extract",
    TransformSpec: "transform",
}
"""What each kind of spec is for; a task's kind has the same name."""


@dataclass(frozen=True, slots=True)
class NamedTask:
    """A spec under a name.

    Attributes
    ----------
    spec : LabelSet, RouteSet, QuestionSet, ExtractSpec or TransformSpec
        As a request would bring it.
    info : TaskInfo
        Its ``version`` is the start of the digest over the spec and the versions of its model and
        adapter.
    """

    spec: Spec
    info: TaskInfo

    @property
    def writes(self) -> bool:
        """Whether the model writes answers; else it chooses among options."""
        return isinstance(self.spec, (ExtractSpec, TransformSpec))


def load(name: str, spec: Spec, model: GenerativeModel, *, adapter_version: str = "") -> NamedTask:
    """Check a spec against the model that it is for. Compiles its schema or grammar.

    Parameters
    ----------
    model : GenerativeModel
        Loaded with the spec's adapter.
    adapter_version : str
        Of the spec's adapter; empty without one.

    Raises
    ------
    ConfigError
        What a request with this spec would be refused for, under the path of the task.
    TaskNotSupported
        The model has no chat template.
    """
    try:
        _check(spec, model)
    except InvalidInput as error:
        reason = error.message.removeprefix(f"{error.field}: ")
        if error.field.startswith("texts"):
            raise ConfigError(
                f"tasks.{name}", f"no room is left for a text beside the prompt: {reason}"
            ) from None
        raise ConfigError(f"tasks.{name}.{error.field}", reason) from None
    kind = VERBS[type(spec)]
    content = json.dumps([kind, asdict(spec), model.info.version, adapter_version], sort_keys=True)
    info = TaskInfo(
        name=name,
        kind=kind,
        labels=_labels(spec),
        models=((model.info.name, model.info.version),),
        calibrated=False,
        accept_at=0.0,
        version=hashlib.sha256(content.encode()).hexdigest()[:12],
    )
    return NamedTask(spec, info)


async def warm_up(spec: Spec, model: GenerativeModel, mailbox: Mailbox) -> None:
    """Have a model read what the prompts of a task begin with: see `sprat.tasks.warm_up`."""
    match spec:
        case LabelSet():
            await choose.run(model, PROBES[:1], spec, mailbox=mailbox)
        case RouteSet():
            await route.run(model, PROBES[:1], spec, mailbox=mailbox)
        case QuestionSet():
            await decide.run(model, PROBES[:1], spec, mailbox=mailbox)
        case ExtractSpec():
            await extract.warm_up(model, spec, mailbox=mailbox)
        case TransformSpec():
            await transform.warm_up(model, spec, mailbox=mailbox)


def _check(spec: Spec, model: GenerativeModel) -> None:
    match spec:
        case LabelSet():
            choose.check(model, spec)
        case RouteSet():
            route.check(model, spec)
        case QuestionSet():
            decide.check(model, spec)
        case ExtractSpec():
            extract.check(model, spec)
        case TransformSpec():
            transform.check(model, spec)


def _labels(spec: Spec) -> tuple[str, ...]:
    """What a task may answer; of a decide task, what it answers."""
    match spec:
        case LabelSet():
            return tuple(label.name for label in spec.labels)
        case RouteSet():
            return tuple(each.name for each in spec.destinations)
        case QuestionSet():
            return tuple(question.name for question in spec.questions)
        case ExtractSpec():
            return Schema(spec.schema).properties
        case TransformSpec():
            return ()
