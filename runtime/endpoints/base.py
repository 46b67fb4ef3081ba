"""What an endpoint is to a tier, whatever protocol it speaks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sprat.asked_manifest import Remote, RemoteCategories, RemoteFields, RemoteRewriting
from sprat.endpoints.guard import Guard
from sprat.errors import DeadlineExceeded, EngineError, QueueFull, SpratError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Said:
    """What an endpoint says of a text.

    Attributes
    ----------
    confidence : float
        How sure it is of its answer by its own lights, in [0, 1]; 0 without one.
    input_tokens : int
        That it read, as far as it says so.
    """

    confidence: float
    input_tokens: int


@dataclass(frozen=True, slots=True)
class SaidLabel(Said):
    """A label.

    Attributes
    ----------
    label : str
        One of the labels that it was asked for; empty where it named none of them.
    """

    label: str


@dataclass(frozen=True, slots=True)
class SaidFields(Said):
    """Fields of a text.

    Attributes
    ----------
    value : dict or None
        JSON as it came; None where there is none. Nobody has compared it with the text.
    scores : mapping of str to float
        Of single leaves, by their JSON Pointers, as far as it says them.
    """

    value: dict[str, Any] | None
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SaidCategories(Said):
    """Categories of a text.

    Attributes
    ----------
    chances : mapping of str to float
        How probable each category is by its own lights, in [0, 1]; not all of them where the answer
        is none.
    spans : mapping of str to (int, int)
        Characters where the reason stands, of categories of which it says that.
    chunks : int
        Windows that it read the text in.
    """

    chances: Mapping[str, float]
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    chunks: int = 1

    @classmethod
    def of(cls, chances: Mapping[str, float], input_tokens: int, **more: Any) -> SaidCategories:
        """As sure as what is more probable of each category is together."""
        sure = math.prod(max(chance, 1 - chance) for chance in chances.values())
        return cls(sure if chances else 0.0, input_tokens, chances, **more)


@dataclass(frozen=True, slots=True)
class SaidText(Said):
    """A text.

    Attributes
    ----------
    text : str
    complete : bool
        Whether it came to its end.
    logprobs : tuple of float
        Natural logarithm of the probability of each of its tokens, as far as it says them.
    output_tokens : int
        That it wrote, as far as it says so.
    """

    text: str
    complete: bool
    logprobs: tuple[float, ...]
    output_tokens: int


SaidT = TypeVar("SaidT", bound=Said)

OnSaid = Callable[[int, SaidT], None]
"""Is told of an answer as soon as it is there, and of which text; it never raises."""


class Question(Protocol[SaidT]):
    """What a tier asks an endpoint about texts."""

    async def ask(
        self, texts: Sequence[str], *, deadline: float, on_said: OnSaid[SaidT] | None = None
    ) -> list[SaidT | SpratError]:
        """Ask about each text; to cancel it gives up what is under way.

        Parameters
        ----------
        deadline : float
            `time.monotonic` value; what is not answered then comes back as DeadlineExceeded.
        on_said : callable, optional
            See `OnSaid`.

        Returns
        -------
        list of Said or SpratError
            One for each text. An error is one of `missed`.

        Raises
        ------
        QueueFull
            There is no room for so many texts.
        """
        ...


class TextQuestion(Protocol):
    """What a tier of a transform task asks an endpoint about texts; a `Question`."""

    async def ask(
        self,
        texts: Sequence[str],
        *,
        deadline: float,
        on_said: OnSaid[SaidText] | None = None,
        inputs: Mapping[str, str] = {},
    ) -> list[SaidText | SpratError]:
        """See `Question.ask`.

        Parameters
        ----------
        inputs : mapping of str to str
            Values of the prompt's placeholders, but for that of the text.
        """
        ...


class Endpoint(Protocol):
    """An endpoint of the configuration. Lives on one event loop, from its first question on."""

    @property
    def name(self) -> str:
        """In the configuration."""
        ...

    @property
    def guard(self) -> Guard:
        """What stands before it."""
        ...

    def labels(self, asked: Remote) -> Question[SaidLabel]:
        """A question for labels.

        Raises
        ------
        ConfigError
            The tier was calibrated with something else than what the configuration names.
        """
        ...

    def categories(self, asked: RemoteCategories) -> Question[SaidCategories]:
        """A question for categories; see `labels`."""
        ...

    def fields(self, asked: RemoteFields) -> Question[SaidFields]:
        """A question for fields; see `labels`."""
        ...

    def texts(
        self, asked: RemoteRewriting, *, schema: str | None, has_logprobs: bool
    ) -> TextQuestion:
        """A question for texts; see `labels`.

        Parameters
        ----------
        schema : str or None
            JSON Schema that the texts are to fit. Endpoints need not obey.
        has_logprobs : bool
            Whether the probabilities of tokens are wanted.
        """
        ...

    async def task_version(self, kind: str, labels: Sequence[str]) -> str:
        """Version of the task that it names; empty where it names a model, and nothing is sent.

        Parameters
        ----------
        kind : {"classify", "moderate", "extract", "transform"}
            Of the task.
        labels : sequence of str
            What the task is to answer: labels, or fields.

        Raises
        ------
        ConfigError
            There is no such task, or it is of another kind or has other labels.
        SpratError
            The server cannot be asked.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


def tell(heard: Sequence[SaidT | SpratError], on_said: OnSaid[SaidT] | None) -> None:
    """Tell of all answers that there are, where somebody wants to know."""
    if on_said is not None:
        for at, said in enumerate(heard):
            if not isinstance(said, SpratError):
                on_said(at, said)


def missed(name: str, error: SpratError) -> SpratError:
    """What a failure is to a cascade: DeadlineExceeded, QueueFull or EngineError.

    What the endpoint said goes to the log, since callers need not know who is asked and how.
    """
    if type(error) in (QueueFull, EngineError):
        return error
    log.warning("endpoint %s: %s", name, error.message)
    if isinstance(error, DeadlineExceeded):
        return DeadlineExceeded(f"endpoint {name}: no answer in time")
    return EngineError(f"endpoint {name} failed ({error.reason})")
