"""The client that blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprat import codec
from sprat.client.channel import (
    DEFAULT_TIMEOUT_S,
    OVERALL,
    bearer,
    credentials,
    not_ready,
    options,
    socket_address,
    to_error,
)
from sprat.errors import NotReady
from sprat.proto.v1 import sprat_pb2 as pb
from sprat.proto.v1.sprat_pb2_grpc import SpratStub
from sprat.values import (
    Chunk,
    ClassifyResult,
    DecideResult,
    Effort,
    EmbedResult,
    ExtractResult,
    ExtractSpec,
    LabelSet,
    LongInput,
    Message,
    ModelInfo,
    ModerateResult,
    QuestionSet,
    RouteResult,
    RouteSet,
    Sampling,
    TaskInfo,
    TokenizeResult,
    TransformSpec,
    Truncation,
)


class Client:
    """A blocking client. Safe to share between threads; close it or use it as a context manager.

    Parameters
    ----------
    target : str, optional
        ``unix:PATH`` or ``HOST:PORT``; absent: the default Unix socket of this user.
    token : str, optional
        Bearer token.
    tls_ca : Path, optional
        PEM file of the authority that signed the server's certificate; turns TLS on.
    tls_certificate, tls_key : Path, optional
        PEM files of this client, where the server asks for them (mTLS).
    timeout_s : float or None
        Deadline of every unary call, in seconds; None waits for ever.

    Examples
    --------
    >>> with Client() as client:  # doctest: +SKIP
    ...     client.classify("tickets", ["Where is my parcel?"]).items[0].label
    'shipping'
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        tls_ca: Path | None = None,
        tls_certificate: Path | None = None,
        tls_key: Path | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        secured = credentials(tls_ca, tls_certificate, tls_key)
        address = socket_address(target)
        self._channel = (
            grpc.insecure_channel(address, options(address))
            if secured is None
            else grpc.secure_channel(address, secured, options(address))
        )
        self._stub: Any = SpratStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = bearer(token)
        self._timeout_s = timeout_s

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Return when the server is there and every model is loaded.

        Raises
        ------
        NotReady
            When that takes longer than ``timeout_s`` seconds, or the server stops before.
        """
        health: Any = health_pb2_grpc.HealthStub(self._channel)
        watch = health.Watch(OVERALL, timeout=timeout_s, wait_for_ready=True)
        try:
            for answer in watch:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except grpc.RpcError as error:
            raise not_ready(error, timeout_s) from None
        finally:
            watch.cancel()
        raise NotReady("the server stopped before it was ready")

    def classify(
        self,
        task: str,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ClassifyResult:
        """Give each text one label of a task.

        Parameters
        ----------
        task : str
            Name of a classify task.
        texts : sequence of str
            From 1 to the server's limit.
        top_k : int, optional
            How many scores a text gets, from 1; absent: all labels.
        truncation : {"refuse", "truncate"}
            What happens to a text of more tokens than the model takes.
        partial : bool
            Answer the good texts when some are bad, and list those in ``errors``.
        max_tier : int, optional
            The last tier of a cascade that may answer, from 0, the cheapest; absent: all.
        accept_at : float, optional
            Least confidence of an answer, in [0, 1], instead of the threshold of every tier;
            absent: as the task says. This and the other two are for trained tasks only.
        budget_ms : float, optional
            Milliseconds within which the answer is wanted: further tiers of a cascade are asked
            only if they can answer in time.

        Raises
        ------
        InvalidInput, InputTooLong, NotFound, QueueFull, NotReady, DeadlineExceeded
            See `sprat.errors`.
        """
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.classify_request(task, texts, top_k, truncation, partial, effort)
        return codec.classify_result(self._call(self._stub.Classify, request))

    def choose(
        self,
        labels: LabelSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        partial: bool = False,
    ) -> ClassifyResult:
        """Give each text one of a request's own labels, with a generative model.

        Scores are the model's own and not calibrated. Texts are never truncated. Parameters and
        errors as in `classify`.
        """
        request = codec.choose_request(labels, texts, top_k, partial)
        return codec.classify_result(self._call(self._stub.Classify, request))

    def route(
        self,
        routes: str | RouteSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> RouteResult:
        """Say where each text goes, by a route task of the server or targets of the request's own.

        The task of a bundle answers as `classify`, with its default target where it abstains;
        everything else as `choose`, with a target for each label: an empty one means its name.
        """
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.route_request(routes, texts, top_k, truncation, partial, effort)
        return codec.route_result(self._call(self._stub.Route, request))

    def moderate(
        self,
        task: str,
        texts: Sequence[str],
        *,
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ModerateResult:
        """Say which categories each text falls into, what to do about it, and where the reason is.

        Texts may be of any length: long ones are scanned in windows. Errors as in `classify`.

        Parameters
        ----------
        task : str
            Name of a moderate task.
        texts : sequence of str
            From 1 to the server's limit.
        partial : bool
            Answer the good texts when some are bad, and list those in ``errors``.
        max_tier, accept_at, budget_ms
            As in `classify`.
        """
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.moderate_request(task, texts, partial, effort)
        return codec.moderate_result(self._call(self._stub.Moderate, request))

    def decide(
        self, questions: str | QuestionSet, texts: Sequence[str], *, partial: bool = False
    ) -> DecideResult:
        """Answer several questions about each text, with a generative model that writes nothing.

        The questions are those of a decide task of the server, or the request's own.
        Scores are the model's own and not calibrated. Texts are never truncated. Parameters and
        errors as in `classify`.
        """
        request = codec.decide_request(questions, texts, partial)
        return codec.decide_result(self._call(self._stub.Decide, request))

    def extract(
        self,
        spec: str | ExtractSpec,
        texts: Sequence[str],
        *,
        requested: Sequence[str] = (),
        long_input: LongInput = "refuse",
        partial: bool = False,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
    ) -> ExtractResult:
        """Find the fields of a task or a JSON Schema in each text, and say where they stand.

        Values of a trained task and their fields carry calibrated confidences. The scores of a
        generative model are its own. Errors as in `classify`.

        Parameters
        ----------
        spec : str or ExtractSpec
            Name of an extract task of the server; or model, schema and what else there is to say.
        texts : sequence of str
            From 1 to the server's limit.
        requested : sequence of str
            Fields that the texts were asked for, such as by the turn of a dialogue before them; for
            a trained task only. Others are found too.
        long_input : {"refuse", "chunk"}
            What happens to a text of more tokens than the model takes beside schema and answer:
            with ``chunk``, overlapping parts are read, and what they give is merged.
        partial : bool
            Answer the good texts when some are bad, and list those in ``errors``.
        max_tier, accept_at, budget_ms
            As in `classify`.
        """
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.extract_request(spec, texts, requested, long_input, partial, effort)
        return codec.extract_result(self._call(self._stub.Extract, request))

    def transform(
        self,
        spec: str | TransformSpec,
        text: str,
        *,
        inputs: Mapping[str, str] | None = None,
        max_tier: int | None = None,
        accept_at: float | None = None,
        budget_ms: float | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Chunk]:
        """Stream a text as a prompt rewrites it. The last chunk says whether it is complete.

        Of the task of a bundle it also says which tier answered, how sure it is, and whether the
        task abstained; then there is no text.
        Closing the iterator stops the generation on the server.

        Parameters
        ----------
        spec : str or TransformSpec
            Name of a transform task of the server; or model, prompt, grammar and how tokens are
            chosen.
        inputs : mapping of str to str, optional
            Values of the prompt's placeholders other than ``{text}``.
        max_tier, accept_at, budget_ms
            As in `classify`; for the task of a bundle only.
        timeout_s : float, optional
            Deadline of the whole answer, in seconds; absent: none.
        """
        effort = Effort(max_tier, accept_at, budget_ms)
        request = codec.transform_request(spec, text, inputs, effort)
        call = self._stub.Transform(request, timeout=timeout_s, metadata=self._metadata)
        try:
            for response in call:
                yield codec.transform_chunk(response)
        except grpc.RpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
    ) -> EmbedResult:
        """L2-normalized sentence vectors, float32[N, D]. Parameters and errors as in `classify`."""
        request = codec.embed_request(model, texts, truncation, partial)
        return codec.embed_result(self._call(self._stub.Embed, request))

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Message],
        sampling: Sampling = Sampling(),
        *,
        adapter: str = "",
        sequences: int = 1,
        logprobs: int | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Chunk]:
        """Stream the continuation of a raw prompt, or the answer to a chat.

        Closing the iterator stops the generation on the server.

        Parameters
        ----------
        adapter : str
            Name of a LoRA adapter of the model; empty for none.
        sequences : int
            Answers to make side by side, from 1; each chunk says which one it belongs to, and each
            answer has a last chunk. A seed grows by 1 from one to the next.
        logprobs : int, optional
            Report the log-probability of each token, and so many of the best ones at its place, 0
            to 20; absent: no report.
        timeout_s : float, optional
            Deadline of the whole answer, in seconds; absent: none.
        """
        request = codec.generate_request(model, prompt, sampling, adapter, sequences, logprobs)
        call = self._stub.Generate(request, timeout=timeout_s, metadata=self._metadata)
        try:
            for response in call:
                yield codec.chunk(response)
        except grpc.RpcError as error:
            raise to_error(error) from None
        finally:
            call.cancel()

    def tokenize(self, model: str, texts: Sequence[str]) -> TokenizeResult:
        """How a model cuts texts into tokens."""
        request = codec.tokenize_request(model, texts)
        return codec.tokenize_result(self._call(self._stub.Tokenize, request))

    def feedback(self, request_id: str, label: str, *, item: int = 0) -> None:
        """Say what would have been the right answer for a text that a task answered.

        Returns when that is committed to the server's decision log. Said again, the last word
        counts.

        Parameters
        ----------
        request_id : str
            As the result says (`ClassifyResult.request_id`).
        label : str
            A label of the task; of a route task the name of a destination; of a moderate task a
            category, or ``allow``, or of all of the answer ``right`` or ``wrong``; of a decide,
            extract or transform task one of these two.
        item : int
            Which of the call's texts, from 0.

        Raises
        ------
        NotFound
            There is no such answer, or not any more.
        InvalidInput
            The label is none of the task's.
        ConfigError
            The server keeps no decision log.
        NotReady, QueueFull
            The log cannot be written now.
        """
        request = codec.feedback_request(request_id, label, item)
        self._call(self._stub.Feedback, request)

    def list_tasks(self) -> tuple[TaskInfo, ...]:
        """Every task of the server, sorted by name."""
        return codec.task_infos(self._call(self._stub.ListTasks, pb.ListTasksRequest()))

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Every loaded model, sorted by name."""
        return codec.model_infos(self._call(self._stub.ListModels, pb.ListModelsRequest()))

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise to_error(error) from None
