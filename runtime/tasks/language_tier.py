"""A tier that asks a generative model how probable each label is; no text is generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from sprat.asked_manifest import Language
from sprat.bundle_manifest import BundleManifest
from sprat.calibration import confidences, tempered
from sprat.errors import EngineError, SpratError
from sprat.model import GenerativeModel
from sprat.model.instructed import PROBES
from sprat.scheduler import Mailbox
from sprat.tasks import choose
from sprat.tasks.tier import Judged, ModelTier
from sprat.values import IntArray, LabelSet, Truncation


@dataclass(frozen=True, slots=True, eq=False)
class LanguageTier(ModelTier[GenerativeModel]):
    """Labels with their descriptions, asked of a generative model, and a calibration; a `Tier`.

    Its probabilities are those of `sprat.tasks.choose`, at the temperature of the calibration. What
    prompts begin with is read once and kept by the model.

    Attributes
    ----------
    spec : LabelSet
        What is asked: the same labels, in the order in which the model reads them. The model is
        loaded with its adapter.
    """

    writes: ClassVar[bool] = False
    spec: LabelSet
    _columns: IntArray = field(init=False)

    def __post_init__(self) -> None:
        places = {label.name: place for place, label in enumerate(self.spec.labels)}
        columns = np.array([places[label] for label in self.labels], np.int32)
        object.__setattr__(self, "_columns", columns)

    @classmethod
    def of(cls, manifest: BundleManifest, place: int, model: GenerativeModel) -> LanguageTier:
        """The language tier at a place of a bundle, on a model with its adapter.

        Raises
        ------
        InvalidInput
            The model cannot be asked that, such as labels which it cannot tell apart.
        TaskNotSupported
            The model has no chat template.
        """
        tier = manifest.tiers[place]
        assert isinstance(tier.language, Language)
        spec = tier.language.spec(model.info.name)
        choose.check(model, spec)
        return cls(tier.name, manifest.labels, tier.calibration, model, spec)

    async def warm_up(self, mailbox: Mailbox) -> None:
        """Have the model read the labels, and what else comes before a text."""
        await choose.run(self.model, PROBES[:1], self.spec, mailbox=mailbox)

    async def judge(
        self,
        texts: Sequence[str],
        *,
        top_k: int | None,
        truncation: Truncation,
        partial: bool,
        deadline: float,
        mailbox: Mailbox,
    ) -> Judged:
        """Scores and confidences of texts: see `Tier.judge`.

        Texts are never cut, whatever ``truncation`` says: one that does not fit is refused.

        See `sprat.model.GenerativeModel.choose` for what is raised.
        """
        choices = await choose.ask(
            self.model,
            texts,
            self.spec,
            partial=partial,
            keep_going=True,
            deadline=deadline,
            mailbox=mailbox,
        )
        given = [chosen.probabilities for (chosen,) in choices.chosen]
        asked_nk = np.array(given, np.float32).reshape(-1, len(self.labels))
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        shares_nk = tempered(asked_nk[:, self._columns], temperature)
        is_number = np.isfinite(shares_nk[:, 0])
        shares_mk = shares_nk[is_number]
        # Stable: labels of equal probability stay in the order of the bundle.
        ranked_mk = np.argsort(-shares_mk, axis=1, kind="stable")[:, :top_k]
        probabilities_mk = np.take_along_axis(shares_mk, ranked_mk, axis=1)
        confidence: list[float | None] = [None] * len(shares_mk)
        if self.calibration is not None:
            confidence = confidences(probabilities_mk[:, 0], self.calibration).tolist()
        kept = [index for index, _ in choices.kept]
        input_tokens, cached_tokens, cpu_ns = ([0] * len(texts) for _ in range(3))
        pruned = [0.0] * len(texts)
        for (index, tokens), (chosen,), spent in zip(
            choices.kept, choices.chosen, choices.cpu_ns, strict=True
        ):
            input_tokens[index], cached_tokens[index] = tokens, chosen.cached_tokens
            pruned[index], cpu_ns[index] = chosen.pruned, spent
        numbers = is_number.tolist()
        failed: dict[int, SpratError] = {**choices.failed}
        for index, good in zip(kept, numbers, strict=True):
            if not good:
                name = self.model.info.name
                failed[index] = EngineError(f"model {name} has no scores for texts[{index}]")
        return Judged(
            index=[index for index, good in zip(kept, numbers, strict=True) if good],
            failed=dict(sorted(failed.items())),
            ranked=ranked_mk.tolist(),
            probabilities=probabilities_mk.tolist(),
            confidence=confidence,
            labels=self.labels,
            input_tokens=input_tokens,
            dropped_tokens=[0] * len(texts),
            cached_tokens=cached_tokens,
            pruned=pruned,
            cpu_ns=cpu_ns,
            errors=choices.errors,
            tokenize_ns=choices.tokenize_ns,
            queue_ns=choices.queue_ns,
            infer_ns=choices.infer_ns,
        )
