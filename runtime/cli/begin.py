"""Bundles of kind transform that ``sprat add-tier --new`` begins, and files of transform tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sprat.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from sprat.bundle import Bundle
    from sprat.store import Store
    from sprat.train.rewriting_record import RewritingRecord
    from sprat.values import TransformSpec

_ASKS = ("prompt", "task", "max_tokens")


def read_task_file(path: Path) -> TransformSpec:
    """The one transform task of a file of configuration.

    Raises
    ------
    ConfigError
        It cannot be used.
    InvalidInput
        It has none, or others.
    """
    from sprat.config import load
    from sprat.task_config import TransformTaskConfig

    tasks = load(path, environment={}).tasks
    if len(tasks) != 1:
        raise InvalidInput(f"--task: expected one task in {path}, found {len(tasks)}", field="task")
    ((name, found),) = tasks.items()
    if not isinstance(found, TransformTaskConfig):
        raise InvalidInput(
            f"--task: expected a task of kind transform in {path}, but {name} is another",
            field="task",
        )
    return found.spec()


def begin(
    store: Store,
    name: str,
    *,
    model: str | None,
    adapter: str | None,
    right_at: float | None,
    refused: dict[str, object],
    asks: dict[str, Any],
) -> tuple[Bundle, RewritingRecord]:
    """A bundle without a tier yet, if nothing has its name: see `sprat.train.begin`.

    Parameters
    ----------
    refused : dict of str to object
        Options that mean nothing here, with what was given; None is not given.
    asks : dict of str to object
        Options of questions, of other kinds of tasks as well.
    """
    from sprat.train.begin import begin_transform

    if model is None:
        raise InvalidInput(
            "--new: expected --model or --task; the first tier may not be remote", field="new"
        )
    others = {f"--{each.replace('_', '-')}": asks[each] for each in asks if each not in _ASKS}
    for option, value in {**refused, **others}.items():
        if value is not None:
            raise InvalidInput(
                f"{option}: expected none beside --new, which begins a transform task",
                field=option[2:],
            )
    try:
        store.bundle(name)
    except NotFound:
        return begin_transform(
            store,
            Path(name).name,
            model=model,
            adapter=adapter,
            right_at=1.0 if right_at is None else right_at,
            **{each: asks.get(each) for each in _ASKS},
        )
    raise InvalidInput(
        f"{name}: is there already; expected another name, or no --new", field="bundle"
    )
