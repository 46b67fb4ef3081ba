"""Endpoints in the configuration: other machines that tiers of tasks may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from sprat.task_config import Section


class EndpointConfig(Section):
    """An endpoint; nothing is sent to it unless the tier of a task names it."""

    url: Annotated[
        str,
        Field(
            description="`https://HOST/v1` of an OpenAI-compatible chat endpoint; or of another "
            "sprat server `sprat://HOST:PORT` or `unix:PATH`"
        ),
    ]
    model: Annotated[
        str,
        Field(
            min_length=1,
            description="the model, as the endpoint calls it; the task of a sprat server",
        ),
    ]
    key_file: Annotated[Path | None, Field(description="file with the key or token")] = None
    key_variable: Annotated[
        str, Field(description="variable of the environment with the key or token; empty: none")
    ] = ""
    ca: Annotated[
        Path | None,
        Field(
            description="PEM file of the authorities to trust; absent: the usual ones. A sprat "
            "server beyond this machine needs it"
        ),
    ] = None
    timeout_s: Annotated[float, Field(gt=0, description="seconds of one attempt")] = 10.0
    attempts: Annotated[
        int, Field(ge=1, le=10, description="attempts for a text, with growing pauses")
    ] = 2
    concurrency: Annotated[int, Field(ge=1, le=64, description="requests side by side")] = 4
    queue: Annotated[
        int, Field(ge=0, description="texts that may wait besides; more are refused at once")
    ] = 256
    input_price: Annotated[float, Field(ge=0, description="money for 1,000 tokens read")] = 0.0
    output_price: Annotated[float, Field(ge=0, description="money for 1,000 tokens written")] = 0.0
    daily_spend: Annotated[
        float | None,
        Field(ge=0, description="most money of a day (UTC), by the prices; absent: any"),
    ] = None
    daily_requests: Annotated[
        int | None, Field(ge=0, description="most requests of a day (UTC); absent: any")
    ] = None
    daily_tokens: Annotated[
        int | None, Field(ge=0, description="most tokens of a day (UTC); absent: any")
    ] = None

    @model_validator(mode="after")
    def _belongs_together(self) -> EndpointConfig:
        if self.key_file is not None and self.key_variable:
            raise ValueError("key_file and key_variable say the same; keep one")
        if self.daily_spend is not None and not (self.input_price or self.output_price):
            raise ValueError("daily_spend needs input_price or output_price")
        return self
