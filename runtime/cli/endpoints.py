"""The endpoint that a command asks, as the configuration describes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sprat.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sprat.bundle_manifest import BundleManifest
    from sprat.config import Config
    from sprat.endpoints.base import Endpoint
    from sprat.store import Store
    from sprat.values import TierInfo

EndpointName = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="NAME",
        help="An endpoint of the configuration, `[endpoints.NAME]`. The texts of the rows are sent "
        "there.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="With --endpoint: TOML file that describes it."),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="With --endpoint: ask about all rows, also about those that a stopped run has answers "
        "to.",
    ),
]


class EndpointUse:
    """The endpoint that a command asks, what that cost, and what it has answered.

    Answers are kept until the command says that it is `done`: a stopped run asks for nothing twice.

    Parameters
    ----------
    name : str
        In the configuration.
    config : Path or None
        The file; None: the environment only.
    restart : bool
        Drop the answers that a stopped run left.

    Raises
    ------
    ConfigError
        There is no such endpoint.
    """

    def __init__(
        self, name: str, config: Path | None, store: Store, *, restart: bool = False
    ) -> None:
        from sprat.config import load
        from sprat.train.asked import ATTEMPTS
        from sprat.train.kept_answers import KeptAnswers

        known = load(config).endpoints
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(f"endpoints.{name}", f"no such endpoint; known: {listed}")
        given = known[name]
        self.name = name
        self.model = given.model
        self._config = given.model_copy(update={"attempts": max(ATTEMPTS, given.attempts)})
        self._folder = store.endpoints
        self._opened: list[Endpoint] = []
        self._kept = KeptAnswers(store.answers, name, given.url, restart=restart)

    def serving(self, bundle: str, manifest: BundleManifest) -> Config:
        """The task of a bundle whose remote tiers ask it, and that fails where it fails."""
        from sprat.config import Config
        from sprat.task_config import TaskConfig, TierConfig

        remote = [tier.name for tier in manifest.tiers if tier.remote is not None]
        tiers = {name: TierConfig(endpoint=self.name) for name in remote}
        return Config(
            tasks={manifest.name: TaskConfig(bundle=bundle, tiers=tiers, on_failure="error")},
            endpoints={self.name: self._config} if remote else {},
        )

    def open(self) -> Endpoint:
        """The endpoint; whoever asks for it closes it."""
        from sprat.endpoints.opening import open_endpoint

        self._opened.append(open_endpoint(self.name, self._config, self._folder))
        return self._kept.over(self._opened[-1])

    def cost_ms(self) -> float:
        """See `sprat.train.kept_answers.KeptAnswers.cost_ms`."""
        return self._kept.cost_ms()

    def done(self) -> None:
        """Forget the answers: what they were for is written."""
        self._kept.drop()

    def task_version(self, bundle: BundleManifest) -> str:
        """See `sprat.endpoints.base.Endpoint.task_version`."""
        # A router asks for labels, as a classifier does.
        kind = "classify" if bundle.kind == "route" else bundle.kind

        async def ask() -> str:
            endpoint = self.open()
            try:
                return await endpoint.task_version(kind, bundle.labels)
            finally:
                await endpoint.aclose()

        return asyncio.run(ask())

    def close(self) -> None:
        """Say what the endpoint was asked for today, if it was, and what is kept of its answers."""
        kept = self._kept.count
        self._kept.close()
        if not self._opened:
            return
        if self._kept.found:
            typer.echo(
                f"endpoint {self.name}: {self._kept.found} rows were answered in a stopped run "
                "(--restart asks again)",
                err=True,
            )
        if kept:
            typer.echo(
                f"endpoint {self.name}: {kept} answers are kept; the same question asks only for "
                "the others",
                err=True,
            )
        spent = self._opened[-1].guard.spending.spent
        money = f", {spent.money:.4f} spent" if spent.money else ""
        typer.echo(
            f"endpoint {self.name}, today (UTC): {spent.requests} requests, "
            f"{spent.input_tokens} tokens read, {spent.output_tokens} written{money}",
            err=True,
        )

    def show_served(self, tiers: Sequence[TierInfo]) -> None:
        """The same, by the tiers of a task of `serving`."""
        for tier in tiers:
            if (asked := tier.endpoint) is not None:
                money = f", {asked.spent_today:.4f} spent" if asked.spent_today else ""
                typer.echo(
                    f"endpoint {self.name}, today (UTC): {asked.requests_today} requests, "
                    f"{asked.tokens_today} tokens{money}",
                    err=True,
                )


def endpoint_use(
    name: str | None, config: Path | None, store: Store, *, restart: bool = False
) -> EndpointUse | None:
    """What the options name.

    Raises
    ------
    InvalidInput
        There is a configuration or a restart, but no endpoint.
    """
    if name is None:
        if restart:
            raise InvalidInput("--restart: expected --endpoint beside it", field="restart")
        if config is not None:
            raise InvalidInput("--config: expected --endpoint beside it", field="config")
        return None
    return EndpointUse(name, config, store, restart=restart)


def check_endpoint(
    manifests: Sequence[BundleManifest], places: Sequence[tuple[int, ...]], use: EndpointUse | None
) -> None:
    """Refuse remote tiers without an endpoint, and an endpoint without a remote tier.

    Parameters
    ----------
    places : sequence of tuple of int
        The tiers of each bundle that are evaluated.

    Raises
    ------
    InvalidInput
    """
    remote = [
        (manifest.name, manifest.tiers[place].name)
        for manifest, each in zip(manifests, places, strict=True)
        for place in each
        if manifest.tiers[place].remote is not None
    ]
    if remote and use is None:
        bundle, tier = remote[0]
        raise InvalidInput(
            f"{bundle}: expected --endpoint for tier {tier}, or another --tier", field="endpoint"
        )
    if use is not None and not remote:
        raise InvalidInput("--endpoint: no tier that is evaluated is remote", field="endpoint")
