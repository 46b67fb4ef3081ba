"""Moderate: what to do about texts, by a moderator of one tier or a cascade."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sprat.bundle_manifest import BundleManifest, Thresholds
from sprat.errors import ConfigError
from sprat.manifest import digest_of
from sprat.scheduler import Mailbox
from sprat.task_config import ThresholdsConfig
from sprat.tasks.cascade import Escalation
from sprat.tasks.moderate_tier import Moderated, ModerateTier
from sprat.tasks.tier import Part
from sprat.values import CategoryThresholds, Effort, ModerateResult, Moderation, OnFailure


class ModerateTask(Escalation[ModerateTier, Moderation]):
    """A moderator: the tiers of a bundle, each with a probability for each category.

    Parameters
    ----------
    name : str
        How requests call it.
    manifest : BundleManifest
        Of a bundle of kind moderate.
    parts : sequence of Part
        From the cheapest to the best; the last is the bundle's last tier.
    on_failure : {"abstain", "answer", "error"}
        See `sprat.tasks.cascade.Escalation`.
    thresholds : mapping of str to ThresholdsConfig
        By category, what the configuration says in the place of the bundle. Confidences were
        calibrated for the thresholds of the bundle: with others there are none.
    unconfigured : tuple of str
        See `sprat.values.TaskInfo`.

    Raises
    ------
    ConfigError
        A threshold is for a category that the bundle does not have, or would block what is not
        flagged; or there are thresholds beside a least confidence, for which see ``parts``.
    """

    def __init__(
        self,
        name: str,
        manifest: BundleManifest,
        parts: Sequence[Part[ModerateTier]],
        *,
        on_failure: OnFailure = "abstain",
        thresholds: Mapping[str, ThresholdsConfig] = {},
        unconfigured: tuple[str, ...] = (),
    ) -> None:
        *earlier, last = parts
        own = last.tier.thresholds
        limits = _overridden(name, manifest.labels, own, thresholds)
        if limits != own:
            if any(part.accept_at > 0 for part in parts):
                raise ConfigError(
                    f"tasks.{name}.thresholds",
                    "expected none beside accept_at: confidences hold for the thresholds of the "
                    "bundle",
                )
            parts = [*earlier, replace(last, tier=last.tier.acting_at(limits))]
        super().__init__(name, manifest, parts, on_failure=on_failure, unconfigured=unconfigured)
        version = self._info.version
        if limits != own:
            version = digest_of((), extra=f"{version}\0{limits!r}")[:12]
        self._info = replace(
            self._info,
            calibrated=all(manifest.tiers[part.place].calibration is not None for part in parts),
            version=version,
            thresholds=tuple(
                CategoryThresholds(category, each.flag_at, each.block_at)
                for category, each in zip(manifest.labels, limits, strict=True)
            ),
        )

    async def run(
        self,
        texts: Sequence[str],
        *,
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
        mailbox: Mailbox,
    ) -> ModerateResult:
        """Moderate texts of any length.

        See `sprat.tasks.cascade.Escalation.answer` for the parameters and for what is raised.
        """
        ask = self.asking(partial=partial, mailbox=mailbox)
        return await self.answer(
            texts, ask, ModerateResult, partial=partial, effort=effort, deadline=deadline
        )

    @staticmethod
    def asking(
        *, partial: bool, mailbox: Mailbox
    ) -> Callable[[ModerateTier, Sequence[str], float], Coroutine[Any, Any, Moderated]]:
        """How a tier is asked; see `run`."""

        def ask(
            tier: ModerateTier, texts: Sequence[str], deadline: float
        ) -> Coroutine[Any, Any, Moderated]:
            return tier.judge(texts, partial=partial, deadline=deadline, mailbox=mailbox)

        return ask


def _overridden(
    task: str,
    categories: Sequence[str],
    given: Sequence[Thresholds],
    overrides: Mapping[str, ThresholdsConfig],
) -> tuple[Thresholds, ...]:
    """The thresholds of a bundle, with those of the configuration in their places."""
    for category in overrides:
        if category not in categories:
            known = ", ".join(map(repr, categories))
            raise ConfigError(
                f"tasks.{task}.thresholds.{category}",
                f"the bundle has no such category; it has {known}",
            )
    made = []
    for category, each in zip(categories, given, strict=True):
        flag_at, block_at = each.flag_at, each.block_at
        if category in overrides:
            flag_at, block_at = overrides[category].over(flag_at, block_at)
        if block_at is not None and block_at < flag_at:
            raise ConfigError(
                f"tasks.{task}.thresholds.{category}",
                f"block_at {block_at:g} is below flag_at {flag_at:g}; what is not given here is as "
                "in the bundle",
            )
        made.append(Thresholds(flag_at=flag_at, block_at=block_at))
    return tuple(made)
