"""What tiers without weights ask: a generative model of this machine, or an endpoint."""

from __future__ import annotations

from pydantic import Field

from sprat.manifest import Manifest, ModelRef
from sprat.values import Label, LabelSet, Scoring


class Language(Manifest):
    """What a language tier asks its model about a text.

    Attributes
    ----------
    labels : tuple of Label
        Those of the bundle, in the order in which the model reads them.
    instructions, scoring, normalize_length, correct_prior
        As in `sprat.values.LabelSet`.
    adapter : ModelRef or None
        The LoRA adapter that the model answers under.
    """

    labels: tuple[Label, ...]
    instructions: str = ""
    scoring: Scoring = "constrained"
    normalize_length: bool = False
    correct_prior: bool = False
    adapter: ModelRef | None = None

    def spec(self, model: str) -> LabelSet:
        """The same as a request would bring it, for the model of that name."""
        return LabelSet(
            model,
            self.labels,
            self.instructions,
            self.scoring,
            self.normalize_length,
            self.correct_prior,
            "" if self.adapter is None else self.adapter.name,
        )


class Remote(Manifest):
    """What a remote tier asks an endpoint about a text. Which endpoint: the configuration says it.

    Attributes
    ----------
    model : str
        As the endpoint calls it; of another sprat server the task.
    task_version : str
        Of that task; empty of a chat endpoint, whose models have no digest.
    labels : tuple of Label
        Those of the bundle, in the order in which a model reads them.
    instructions : str
        As in `sprat.values.LabelSet`.
    votes : int
        Answers for each text; see `sprat.endpoints.labels.LabelQuestion`.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    labels: tuple[Label, ...]
    instructions: str = ""
    votes: int = Field(default=1, ge=1)
