"""What tiers without weights ask: a generative model of this machine, or an endpoint."""

from __future__ import annotations

from pydantic import Field

from sprat.manifest import Manifest, ModelRef
from sprat.values import Grammar, Label, LabelSet, Sampling, Scoring, TransformSpec


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


class Rewriting(Manifest):
    """What a language tier of a transform task asks its model about a text.

    Attributes
    ----------
    prompt : str
        As in `sprat.values.TransformSpec`; its placeholders are ``{text}`` and the task's inputs.
    sampling : Sampling
        How tokens are chosen.
    lookup : bool
        As in `sprat.values.TransformSpec`.
    adapter : ModelRef or None
        The LoRA adapter that the model answers under.
    """

    prompt: str = Field(min_length=1)
    sampling: Sampling = Sampling()
    lookup: bool = True
    adapter: ModelRef | None = None

    def spec(self, model: str, grammar: Grammar | None) -> TransformSpec:
        """The same as a request would bring it, for the model of that name.

        Parameters
        ----------
        grammar : Grammar or None
            What answers of the task have to fit.
        """
        return TransformSpec(
            model,
            self.prompt,
            grammar,
            self.sampling,
            self.lookup,
            "" if self.adapter is None else self.adapter.name,
        )


class RemoteRewriting(Manifest):
    """What a remote tier of a transform task asks an endpoint about a text.

    Attributes
    ----------
    model, task_version
        As in `Remote`.
    prompt : str
        As in `Rewriting`; empty of another sprat server, whose task has its own.
    sampling : Sampling
        How a model behind a chat endpoint chooses tokens: of it ``max_tokens``, ``temperature``,
        ``top_p``, ``seed`` and ``stop`` are sent.
    """

    model: str = Field(min_length=1)
    task_version: str = ""
    prompt: str = ""
    sampling: Sampling = Sampling()
