"""Configuration: one document with every default, read from TOML, environment and flags.

Precedence: defaults < TOML file < environment < flags. An environment variable is ``SPRAT_``, then
the path in upper case with ``__`` between the parts: ``SPRAT_SERVER__LISTEN`` is ``server.listen``.
An error names the path: ``server.grace_s: Input should be greater than or equal to 0``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from sprat.endpoint_config import EndpointConfig
from sprat.errors import ConfigError
from sprat.manifest import Name
from sprat.task_config import (
    FOLDER,
    KINDS,
    MODEL_TASKS,
    AnyTaskConfig,
    Section,
    TaskConfig,
    ThresholdsConfig,
)
from sprat.values import Sampling

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT_PREFIX = "SPRAT_"


class ServerConfig(Section):
    """Where and how the server listens."""

    listen: Annotated[
        str,
        Field(description="`unix:PATH` or `HOST:PORT`; empty: `unix:SPRAT_HOME/run/sprat.sock`"),
    ] = ""
    tls_certificate: Annotated[
        Path | None, Field(description="PEM file with the server's certificate chain")
    ] = None
    tls_key: Annotated[Path | None, Field(description="PEM file with its private key")] = None
    tls_client_ca: Annotated[
        Path | None, Field(description="PEM file; clients must show a certificate signed by it")
    ] = None
    token_file: Annotated[
        Path | None,
        Field(description="file with one `sha256:<hex>` of a bearer token a line"),
    ] = None
    insecure: Annotated[
        bool, Field(description="allow TCP beyond loopback without TLS and token")
    ] = False
    max_message_bytes: Annotated[
        int, Field(ge=1024, le=2**31 - 1, description="largest request that is read")
    ] = 16 * 1024 * 1024
    max_concurrent_calls: Annotated[
        int, Field(ge=1, description="calls in flight; more are refused")
    ] = 1024
    reflection: Annotated[bool, Field(description="serve gRPC reflection")] = True
    metrics: Annotated[
        str,
        Field(
            description="`HOST:PORT` of metrics for Prometheus, without TLS and token: loopback, "
            "unless `insecure`; empty: none"
        ),
    ] = ""
    drain_s: Annotated[
        float,
        Field(ge=0, description="seconds between NOT_SERVING and refusing new calls at a stop"),
    ] = 0.5
    grace_s: Annotated[
        float, Field(ge=0, description="seconds that calls in flight get to finish at a stop")
    ] = 15.0

    @model_validator(mode="after")
    def _tls_files_belong_together(self) -> ServerConfig:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are needed together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        return self


class ComputeConfig(Section):
    """The CPU budget and the queues in front of it."""

    threads: Annotated[
        int | None,
        Field(ge=1, description="compute threads; absent: affinity, cgroup quota, physical cores"),
    ] = None
    queue_tokens: Annotated[int, Field(ge=1, description="most tokens that wait for one model")] = (
        65_536
    )


class LimitsConfig(Section):
    """What one request may ask for."""

    max_texts: Annotated[int, Field(ge=1, description="texts in one call")] = 1024
    max_text_bytes: Annotated[int, Field(ge=1, description="UTF-8 bytes of one text")] = (
        4 * 1024 * 1024
    )


class LogConfig(Section):
    """The decision log: what tasks answered, for feedback, tuning and watching for drift."""

    path: Annotated[
        str, Field(description="SQLite file of the decision log, made 0600; empty: none is kept")
    ] = ""
    store_text: Annotated[
        bool, Field(description="store the texts too; else only a keyed hash of each")
    ] = False
    max_rows: Annotated[int, Field(ge=1, description="decisions kept; the oldest go first")] = (
        1_000_000
    )
    max_days: Annotated[float, Field(gt=0, description="days that a decision is kept")] = 30.0
    max_mb: Annotated[
        int, Field(ge=1, description="size of the file in 10^6 bytes; the oldest go first")
    ] = 1024
    shadow_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of the texts that an earlier tier of a cascade answered of which "
            "the last tier is asked too, also a remote one, to learn what it would have said",
        ),
    ] = 0.0

    @model_validator(mode="after")
    def _shadows_are_kept_somewhere(self) -> LogConfig:
        if self.shadow_share > 0 and not self.path:
            raise ValueError("shadow_share needs a path: what the last tier says is kept there")
        return self


class ModelConfig(Section):
    """A model to load, by its name in the store."""

    context_length: Annotated[
        int | None,
        Field(
            ge=32, description="tokens of one sequence (generative); absent: as trained, up to 8192"
        ),
    ] = None
    sequences: Annotated[
        int, Field(ge=1, le=64, description="answers generated side by side (generative)")
    ] = 8
    choice_cells: Annotated[
        int,
        Field(
            ge=512,
            le=65536,
            description="tokens held at most to choose among labels (generative); taken at the "
            "start where a task does, or at the first such call",
        ),
    ] = 4096
    cells: Annotated[
        int | None,
        Field(
            ge=64,
            description="tokens held at most by all answers (generative), about 23 KB each for "
            "smollm2-135m; absent: context_length, and 1024 for each sequence",
        ),
    ] = None
    adapters: Annotated[
        tuple[str, ...],
        Field(
            description="LoRA adapters in the store to load with it (generative); in the "
            "environment separated by commas"
        ),
    ] = ()

    @field_validator("adapters", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("adapters")
    @classmethod
    def _adapters_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected different names, found one twice")
        return value


class Config(Section):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    compute: ComputeConfig = ComputeConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    models: dict[str, ModelConfig] = Field(default_factory=dict)
    endpoints: dict[Name, EndpointConfig] = Field(default_factory=dict)
    tasks: Mapping[str, AnyTaskConfig] = Field(default_factory=dict)

    def with_served(self, *, models: Iterable[str], bundles: Mapping[str, str]) -> Config:
        """Return this configuration with more models, and more bundles by task name."""
        return self.model_copy(
            update={
                "models": {**{name: ModelConfig() for name in models}, **self.models},
                "tasks": {
                    **self.tasks,
                    **{name: TaskConfig(bundle=bundle) for name, bundle in bundles.items()},
                },
            }
        )


def load(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration.

    Parameters
    ----------
    path : Path, optional
        TOML file.
    environment : mapping of str to str, optional
        Absent: the process's own.
    flags : mapping of str to object, optional
        Dotted path to value, such as ``{"server.listen": "127.0.0.1:8501"}``; None values are
        flags that were not given.

    Raises
    ------
    ConfigError
        Names the path of the first value that cannot be used.
    """
    document: dict[str, Any] = {}
    if path is not None:
        document = _read_toml(path)
    for dotted, value in _from_environment(os.environ if environment is None else environment):
        _set(document, dotted, value)
    for dotted, value in (flags or {}).items():
        if value is not None:
            _set(document, dotted, value)
    try:
        folder = Path() if path is None else path.parent
        return Config.model_validate(document, context={FOLDER: folder})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ConfigError(_dotted(_location(first)), _message(first)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """``SPRAT_A__B=x`` as ``("a.b", "x")``; a name without ``__`` is no part of the document."""
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            yield name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."), value


def _set(document: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    node = document
    for depth, part in enumerate(parents, 1):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(
                ".".join(parents[:depth]), f"expected a table, found {type(child).__name__}"
            )
        node = child
    node[last] = value


def _location(error: Any) -> tuple[int | str, ...]:
    """Where a value stands in the document."""
    place: tuple[int | str, ...] = error["loc"]
    if error["type"] == "task_kind":
        return (*place, "kind")
    # Behind the name of a task, pydantic puts which kind of task it took it for.
    return place[:2] + place[3:] if place[:1] == ("tasks",) else place


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "configuration"


def _message(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ")
    given = error.get("input")
    if isinstance(given, (str, int, float, bool)):
        text += f" (got {given!r})"
    return text


def reference() -> list[tuple[str, str, str]]:
    """Every setting for people: its path, its default, what it means and its range."""
    rows = []
    for prefix, section in (
        ("server", ServerConfig),
        ("compute", ComputeConfig),
        ("limits", LimitsConfig),
        ("log", LogConfig),
        ("models.NAME", ModelConfig),
        ("endpoints.NAME", EndpointConfig),
        ("tasks.NAME", TaskConfig),
        ("tasks.NAME.thresholds.CATEGORY", ThresholdsConfig),
    ):
        rows += [
            (f"{prefix}.{info.alias or name}", *_described(info))
            for name, info in section.model_fields.items()
        ]
    kinds = ", ".join(f"`{kind}`" for kind in KINDS)
    rows.append(("tasks.NAME.kind", "", f"{kinds}: asks a generative model; absent: a bundle"))
    shared: dict[tuple[str, str, str], list[str]] = {}
    for kind, section in zip(KINDS, MODEL_TASKS, strict=True):
        for name, info in section.model_fields.items():
            if name != "kind":
                shared.setdefault((info.alias or name, *_described(info)), []).append(kind)
    for (name, default, meaning), users in shared.items():
        who = "" if len(users) == len(KINDS) else f"{', '.join(users)}: "
        rows.append((f"tasks.NAME.{name}", default, f"{who}{meaning}"))
    return rows


def _described(info: FieldInfo) -> tuple[str, str]:
    """A setting's default, and what it means."""
    default = "required" if info.is_required() else _as_toml(info.default)
    bounds = [_bound(each) for each in info.metadata]
    return default, (info.description or "") + "".join(f"; {bound}" for bound in bounds if bound)


def _as_toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sampling):
        return "{}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def _bound(constraint: Any) -> str:
    for name, text in (("ge", "at least"), ("gt", "above"), ("le", "at most")):
        if hasattr(constraint, name):
            return f"{text} {getattr(constraint, name)}"
    return ""
