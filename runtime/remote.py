"""A language model behind an OpenAI-compatible endpoint: llama-server, vLLM, or a paid service.

Nothing here runs unless somebody named the endpoint. It gets the messages that the caller gives and
how to sample, nothing else.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import logging
import math
import os
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel, Field, ValidationError

from sprat.endpoints.guard import Attempt, Guard
from sprat.endpoints.spending import NOTHING, Usage
from sprat.errors import (
    ConfigError,
    DeadlineExceeded,
    EndpointError,
    InvalidInput,
    NotFound,
    QueueFull,
    Retryable,
    SpratError,
)
from sprat.values import Message, Sampling

log = logging.getLogger(__name__)

KEY_VARIABLE = "SPRAT_API_KEY"
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
"""Also the longest ``Retry-After`` that is waited for."""
LARGEST_REPLY = 4 * 1024 * 1024
"""In bytes of the body."""
TEMPLATE_TOKENS = 128
"""More than endpoints put around the messages of a chat."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a remote model answered.

    Attributes
    ----------
    text : str
        The answer; empty where the model refused.
    complete : bool
        False when the answer was cut off, by a limit or by the service's filter.
    logprob : float or None
        Sum of the natural log-probabilities of the answer's tokens; None where they were not asked
        for, or the endpoint does not say them.
    logprobs : tuple of float
        Of each token; empty where ``logprob`` is None.
    usage : Usage or None
        Tokens that were read and written, where the endpoint says.
    """

    text: str
    complete: bool
    logprob: float | None
    usage: Usage | None = None
    logprobs: tuple[float, ...] = ()


class ChatEndpoint:
    """A client of ``POST URL/chat/completions``. Lives on one event loop; close it.

    An attempt that fails in passing (no connection, a cut one, too slow, status 408, 425, 429 or
    5xx) is made again: after what ``Retry-After`` says, else after a random part of a pause that
    doubles from 0.5 s to 60 s ("full jitter"), so that many clients do not come back at once.

    Parameters
    ----------
    url : str
        Such as ``https://models.example.org/v1``. ``http`` is accepted for loopback only: beyond,
        texts and key would travel in the clear. Redirects are not followed.
    model : str
        As the endpoint calls it.
    key : str, optional
        Bearer token. See `read_key`.
    ca : Path, optional
        PEM file of the authorities to trust in place of the usual ones.
    timeout_s : float
        Of one attempt, from connecting to the last byte.
    attempts : int
        Most attempts, from 1.
    concurrency : int
        Most requests under way, from 1.
    guard : Guard, optional
        Asked before each attempt. Absent: whoever uses it looks after it.

    Raises
    ------
    ConfigError
        The URL, the key or the authorities cannot be used.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        ca: Path | None = None,
        timeout_s: float = 60.0,
        attempts: int = 5,
        concurrency: int = 4,
        guard: Guard | None = None,
    ) -> None:
        parsed, is_loopback = _check_url(url)
        self.model = model
        self.name = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
        path = parsed.path.rstrip("/").removesuffix("/chat/completions")
        self._url = parsed.copy_with(path=f"{path}/chat/completions")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._places = asyncio.Semaphore(concurrency)
        self._guard = guard
        self._random = random.Random()
        # Replies are short, and a compressed one has no bound.
        headers = {"Accept-Encoding": "identity"}
        if key is not None:
            headers["Authorization"] = f"Bearer {_check_key(key)}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            verify=_trust(ca),
            # Each attempt as a whole has its time.
            timeout=None,
            limits=httpx2.Limits(max_connections=concurrency),
            # What is for this machine does not go through a proxy.
            trust_env=not is_loopback,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        logprobs: bool = False,
        schema: str | None = None,
        deadline: float = math.inf,
    ) -> Completion:
        """Ask for the next message of a chat.

        Parameters
        ----------
        sampling : Sampling
            ``top_k``, ``min_p`` and ``repeat_penalty``, which the protocol does not have, are sent
            only where they are not off.
        logprobs : bool
            Ask for the probability of the answer.
        schema : str, optional
            JSON Schema of an object that the answer is to fit. Endpoints need not obey.
        deadline : float
            `time.monotonic` value; no attempt begins after it. One that began is not given up.

        Raises
        ------
        InvalidInput
            The endpoint cannot use these messages (status 400, 413 or 422); others may be fine.
        NotFound
            It does not know the model.
        EndpointError
            It refuses us, its certificate is not trusted, or it does not speak the protocol.
        Retryable, DeadlineExceeded
            It could not be reached or was busy, or too slow, at every attempt.
        EngineError, QueueFull
            The guard does not allow an attempt: see `Guard.attempt`.
        """
        body = _body(self.model, messages, sampling, logprobs)
        most = _most(messages, sampling)
        if schema is not None:
            made = {"name": "fields", "schema": json.loads(schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": made}
            # Some put it into the prompt.
            most = Usage(most.input_tokens + len(schema.encode()), most.output_tokens)
        async with self._places:
            for attempt in range(1, self._attempts + 1):
                try:
                    return await self._guarded(body, most)
                except QueueFull:
                    raise
                except (asyncio.TimeoutError, httpx2.RequestError, Retryable) as error:
                    failure = self._judge(error)
                asked = failure.retry_after_s if isinstance(failure, Retryable) else 0.0
                if attempt == self._attempts or asked > LONGEST_PAUSE_S:
                    raise failure
                pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1))
                pause = asked + self._random.uniform(0, pause)
                if time.monotonic() + pause >= deadline:
                    raise failure
                log.info("%s; attempt %d in %.1f s", failure.message, attempt + 1, pause)
                await asyncio.sleep(pause)
        raise AssertionError("attempts: expected 1 or more")

    async def _guarded(self, body: dict[str, Any], most: Usage) -> Completion:
        if self._guard is None:
            return await asyncio.wait_for(self._attempt(body, Attempt()), self._timeout_s)
        with self._guard.attempt(most) as attempt:
            return await asyncio.wait_for(self._attempt(body, attempt), self._timeout_s)

    async def _attempt(self, body: dict[str, Any], attempt: Attempt) -> Completion:
        try:
            response, data = await self._post(body)
        except httpx2.ConnectError:
            attempt.used = NOTHING
            raise
        if response.status_code != httpx2.codes.OK:
            # Only answers are paid for.
            attempt.used = NOTHING
            raise self._refusal(response, data)
        completion = self._completion(data)
        attempt.used = completion.usage
        return completion

    async def _post(self, body: dict[str, Any]) -> tuple[httpx2.Response, bytes]:
        async with self._client.stream("POST", self._url, json=body) as response:
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > LARGEST_REPLY:
                    raise EndpointError(f"{self.name}: a reply of more than {LARGEST_REPLY} bytes")
        return response, bytes(data)

    def _completion(self, data: bytes) -> Completion:
        try:
            reply = _Reply.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise EndpointError(
                f"{self.name}: expected a chat completion, found none ({where}: {first['type']})"
            ) from None
        choice, usage = reply.choices[0], reply.usage
        tokens = choice.logprobs.content if choice.logprobs else None
        return Completion(
            text=choice.message.content or "",
            complete=choice.finish_reason not in ("length", "content_filter"),
            # Rounded ones may add up to a little more than 0.
            logprob=min(0.0, math.fsum(each.logprob for each in tokens)) if tokens else None,
            usage=usage.of() if usage else None,
            logprobs=tuple(each.logprob for each in tokens or ()),
        )

    def _refusal(self, response: httpx2.Response, data: bytes) -> SpratError:
        """What a status other than 200 means."""
        status = response.status_code
        # Whatever else the service says may repeat the text.
        said = _identifier(data)
        message = f"{self.name}: status {status}" + (f" ({said})" if said else "")
        if status in (408, 425, 429) or status >= 500:
            return Retryable(message, retry_after_s=_retry_after_s(response.headers))
        if status == 404:
            if said == "model_not_found":
                return NotFound("model", self.model)
            return EndpointError(f"{message}; is {self._url.path} the right path?")
        if status in (400, 413, 422):
            return InvalidInput(message, field="messages")
        return EndpointError(message)

    def _judge(self, error: Exception) -> Retryable | DeadlineExceeded:
        """An attempt's failure for the caller.

        Raises
        ------
        EndpointError
            There is no use in another attempt.
        """
        if isinstance(error, Retryable):
            return error
        if isinstance(error, asyncio.TimeoutError):
            return DeadlineExceeded(f"{self.name}: no answer within {self._timeout_s:g} s")
        if untrusted := _certificate_error(error):
            raise EndpointError(f"{self.name}: {untrusted.verify_message}") from None
        return Retryable(f"{self.name}: {type(error).__name__}", retry_after_s=0.0)


class _Token(BaseModel):
    logprob: float = Field(allow_inf_nan=False)


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)

    def of(self) -> Usage | None:
        """Both numbers, if both are there."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return Usage(self.prompt_tokens, self.completion_tokens)


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def is_loopback(url: str) -> bool:
    """Whether an endpoint is on this machine.

    Raises
    ------
    ConfigError
        It is no URL of an endpoint.
    """
    return _check_url(url)[1]


def is_url(text: str) -> bool:
    """Whether it names an endpoint, and no task or model."""
    return text.lower().startswith(("http://", "https://"))


def read_key(
    path: Path | None, variable: str = KEY_VARIABLE, *, where: str = "--key-file"
) -> str | None:
    """The key for an endpoint: from a file, else from a variable of the environment.

    It is never an argument of a command: other users of the machine see those.

    Parameters
    ----------
    where : str
        What named the file, for errors.

    Returns
    -------
    str or None
        None where neither is given.

    Raises
    ------
    ConfigError
        The file cannot be read, or what is there is no key.
    """
    if path is None:
        key = os.environ.get(variable)
        return None if key is None else _check_key(key.strip(), variable)
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(where, f"{path} holds no key: not ASCII") from None
    return _check_key(text.strip(), where)


def _check_key(key: str, where: str = "key") -> str:
    if not key or not all("!" <= character <= "~" for character in key):
        raise ConfigError(where, "expected one word of ASCII characters")
    return key


def _check_url(url: str) -> tuple[httpx2.URL, bool]:
    """The URL, and whether it leads to this machine."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError("endpoint", f"no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError("endpoint", "expected https://HOST/..., as in https://HOST/v1")
    if parsed.userinfo or parsed.query:
        raise ConfigError(
            "endpoint", f"expected a URL without credentials; the key goes into {KEY_VARIABLE}"
        )
    try:
        is_loopback = ipaddress.ip_address(parsed.host).is_loopback
    except ValueError:
        is_loopback = parsed.host == "localhost"
    if parsed.scheme == "http" and not is_loopback:
        raise ConfigError(
            "endpoint", "http is for this machine (127.0.0.1) only; expected https://HOST/..."
        )
    return parsed, is_loopback


def _trust(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError("--tls-ca", f"{ca}: {why}") from None


def _most(messages: Sequence[Message], sampling: Sampling) -> Usage:
    """What a request can cost at most: a token is at least a byte."""
    read = sum(len(each.content.encode()) for each in messages)
    return Usage(read + TEMPLATE_TOKENS, sampling.max_tokens)


def _body(
    model: str, messages: Sequence[Message], sampling: Sampling, logprobs: bool
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": each.role, "content": each.content} for each in messages],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
    }
    off = Sampling()
    for name in ("top_p", "top_k", "min_p", "repeat_penalty", "seed"):
        if (value := getattr(sampling, name)) != getattr(off, name):
            body[name] = value
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if logprobs:
        # Some, such as llama-cpp-python's server, say none unless asked for alternatives too.
        body |= {"logprobs": True, "top_logprobs": 1}
    return body


def _identifier(data: bytes) -> str:
    """What an error document calls its error, where that is one short word."""
    try:
        error = _ErrorReply.model_validate_json(data).error
    except ValidationError:
        return ""
    for said in (error.code, error.type):
        if isinstance(said, str) and _IDENTIFIER.fullmatch(said):
            return said
    return ""


class _ErrorBody(BaseModel):
    code: str | int | None = None
    type: str | None = None


class _ErrorReply(BaseModel):
    error: _ErrorBody


def _retry_after_s(headers: httpx2.Headers) -> float:
    """Seconds of a ``Retry-After`` header, which is a number or a date; 0 without a usable one."""
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The failed check of a certificate that an error comes from."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
