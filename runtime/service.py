"""The verbs of sprat as coroutines: what the gRPC servicer and the in-process Runtime both call.

The file is long because each verb has its method here: what a request asks is checked, and what was
answered is logged, in one place.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any, TypeVar

from sprat.budget import ComputePermits, CpuBudget, detect
from sprat.config import Config, LimitsConfig, LogConfig
from sprat.decision_log import DecisionLog
from sprat.decision_rows import LOGGED_KINDS, Result
from sprat.decisions import Decision
from sprat.errors import ConfigError, InvalidInput, TaskNotSupported
from sprat.model import GenerativeModel, require_encoder, require_generative, require_states
from sprat.registry import Registry
from sprat.scheduler import ComputePool, Mailbox
from sprat.shadow import Ask, Shadows
from sprat.store import Store
from sprat.tasks import choose, decide, embed, extract, generate, route, transform
from sprat.tasks.cascade import Escalation
from sprat.tasks.classify import ClassifyTask
from sprat.tasks.extract_task import ExtractTask
from sprat.tasks.moderate import ModerateTask
from sprat.tasks.named import VERBS, NamedTask, Spec
from sprat.tasks.route import RouteTask
from sprat.tasks.transform_task import TransformTask
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
    TierInfo,
    Timings,
    TokenizeResult,
    TokenStates,
    TransformResult,
    TransformSpec,
    Truncation,
)

log = logging.getLogger(__name__)

_Spec = TypeVar("_Spec", bound=Spec)
_Logged = TypeVar(
    "_Logged", ClassifyResult, RouteResult, ModerateResult, DecideResult, ExtractResult
)


class Service:
    """Every verb over one registry. Lives on one event loop.

    Parameters
    ----------
    registry : Registry
        What is loaded.
    pool : ComputePool
        Closed together with the service.
    limits : LimitsConfig
        What one request may ask for.
    """

    def __init__(self, registry: Registry, pool: ComputePool, limits: LimitsConfig) -> None:
        self.registry = registry
        self._pool = pool
        self._limits = limits
        self._mailbox = Mailbox(asyncio.get_running_loop())
        self._decisions: DecisionLog | None = None
        self._shadows: Shadows | None = None

    @classmethod
    async def open(cls, config: Config, store: Store) -> Service:
        """Load what the configuration names, and warm it up; the loop stays responsive meanwhile.

        Raises
        ------
        NotFound, CorruptFile, StaleBundle, EngineError
            See `Registry.load`.
        """
        budget = detect(config.compute.threads)
        log.info("compute threads: %s", budget)
        _warn(budget)
        permits = ComputePermits(budget.threads)
        pool = ComputePool(permits)
        try:
            registry = await asyncio.to_thread(
                Registry.load, config, store, permits=permits, pool=pool
            )
        except BaseException:
            pool.close()
            raise
        service = cls(registry, pool, config.limits)
        try:
            await registry.warm_up(service._mailbox)
            await service.keep_decisions(config.log, permits)
        except BaseException:
            await service.close()
            raise
        return service

    async def keep_decisions(self, config: LogConfig, permits: ComputePermits) -> None:
        """Begin to log what tasks answer, where the configuration names a file.

        Parameters
        ----------
        permits : ComputePermits
            They tell when there is time for shadows.

        Raises
        ------
        ConfigError
            See `sprat.decision_log.DecisionLog`.
        """
        if not config.path:
            return
        self._decisions = await asyncio.to_thread(
            DecisionLog, config, self.list_tasks(), self._mailbox, self._learn
        )
        if (recalled := await asyncio.to_thread(self._decisions.recall)) is not None:
            for name in self.registry.tasks:
                if (watched := self._watched(name)) is not None:
                    watched.recall(recalled)
        if config.shadow_share > 0:
            self._shadows = Shadows(config.shadow_share, lambda: permits.has_spare, self._decisions)

    @property
    def threads(self) -> int:
        """Compute threads that may run at once: the CPU budget."""
        return self._pool.threads

    async def close(self) -> None:
        """Finish what waits, then release models and threads."""
        if self._shadows is not None:
            await self._shadows.close()
        # The pool first: what runs in it may use a model.
        await asyncio.to_thread(self._pool.close)
        await self.registry.aclose()
        await asyncio.to_thread(self.registry.close)
        if self._decisions is not None:
            await asyncio.to_thread(self._decisions.close)

    async def classify(
        self,
        task: str,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> ClassifyResult:
        """Classify texts by a task.

        See `sprat.tasks.classify.ClassifyTask.run`, and `choose` for the task of a generative
        model, which takes no effort.
        """
        found = self.registry.task(task)
        if isinstance(found, ClassifyTask):
            self._check_texts(texts)
            answered = await found.run(
                texts,
                top_k=top_k,
                truncation=truncation,
                partial=partial,
                effort=effort,
                deadline=deadline,
                mailbox=self._mailbox,
            )
            return self._logged(task, texts, answered, truncation=truncation, effort=effort)
        labels, version = self._spec(task, LabelSet)
        result = await self.choose(
            labels,
            texts,
            top_k=top_k,
            truncation=truncation,
            partial=partial,
            effort=effort,
            deadline=deadline,
        )
        return self._logged(task, texts, replace(result, task_version=version))

    async def choose(
        self,
        labels: LabelSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> ClassifyResult:
        """Classify texts by labels of the request's own. See `sprat.tasks.choose.run`."""
        _check_no_effort(effort)
        found = require_generative(self.registry.model(labels.model), "choose")
        self._check_texts(texts)
        self._check_size(labels.instructions, "instructions")
        for index, label in enumerate(labels.labels):
            self._check_size(label.name + label.description, f"labels[{index}]")
        return await choose.run(
            found,
            texts,
            labels,
            top_k=top_k,
            truncation=truncation,
            partial=partial,
            deadline=deadline,
            mailbox=self._mailbox,
        )

    async def route(
        self,
        routes: str | RouteSet,
        texts: Sequence[str],
        *,
        top_k: int | None = None,
        truncation: Truncation = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> RouteResult:
        """Say where texts go, by a task or targets of the request's own.

        See `sprat.tasks.route.RouteTask.run` for the task of a bundle, and `sprat.tasks.route.run`.
        """
        if isinstance(routes, str):
            task = self.registry.task(routes)
            if isinstance(task, RouteTask):
                self._check_texts(texts)
                answered = await task.run(
                    texts,
                    top_k=top_k,
                    truncation=truncation,
                    partial=partial,
                    effort=effort,
                    deadline=deadline,
                    mailbox=self._mailbox,
                )
                return self._logged(routes, texts, answered, truncation=truncation, effort=effort)
        asked = routes
        routes, version = self._spec(routes, RouteSet)
        _check_no_effort(effort)
        found = require_generative(self.registry.model(routes.model), "route")
        self._check_texts(texts)
        self._check_size(routes.instructions, "instructions")
        for index, each in enumerate(routes.destinations):
            self._check_size(each.name + each.description + each.target, f"destinations[{index}]")
        result = await route.run(
            found,
            texts,
            routes,
            top_k=top_k,
            truncation=truncation,
            partial=partial,
            deadline=deadline,
            mailbox=self._mailbox,
        )
        return self._logged(asked, texts, replace(result, task_version=version))

    async def moderate(
        self,
        task: str,
        texts: Sequence[str],
        *,
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> ModerateResult:
        """Moderate texts by a task. See `sprat.tasks.moderate.ModerateTask.run`."""
        found = self.registry.task(task)
        if not isinstance(found, ModerateTask):
            raise _cannot(found.info, "moderate")
        self._check_texts(texts)
        result = await found.run(
            texts, partial=partial, effort=effort, deadline=deadline, mailbox=self._mailbox
        )
        return self._logged(task, texts, result, effort=effort)

    async def extract(
        self,
        spec: str | ExtractSpec,
        texts: Sequence[str],
        *,
        requested: Sequence[str] = (),
        long_input: LongInput = "refuse",
        partial: bool = False,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> ExtractResult:
        """Extract the fields of a task or a schema from texts.

        See `sprat.tasks.extract_task.ExtractTask.run` for the task of a bundle, and
        `sprat.tasks.extract.run`, which takes no effort.
        """
        if isinstance(spec, str):
            task = self.registry.task(spec)
            if isinstance(task, ExtractTask):
                self._check_texts(texts)
                answered = await task.run(
                    texts,
                    requested=requested,
                    long_input=long_input,
                    partial=partial,
                    effort=effort,
                    deadline=deadline,
                    mailbox=self._mailbox,
                )
                return self._logged(spec, texts, answered)
        _check_no_effort(effort)
        if requested:
            raise InvalidInput(
                "requested: only tasks of bundles take it; say it in the instructions",
                field="requested",
            )
        asked = spec
        spec, version = self._spec(spec, ExtractSpec)
        found = require_generative(self.registry.model(spec.model), "extract")
        self._check_texts(texts)
        self._check_size(spec.instructions, "instructions")
        result = await extract.run(
            found,
            texts,
            spec,
            long_input=long_input,
            partial=partial,
            deadline=deadline,
            mailbox=self._mailbox,
        )
        return self._logged(asked, texts, replace(result, task_version=version))

    def transform(
        self,
        spec: str | TransformSpec,
        text: str,
        *,
        inputs: Mapping[str, str] | None = None,
        effort: Effort = Effort(),
        deadline: float = math.inf,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream a text as a task or a prompt rewrites it.

        See `sprat.tasks.transform_task.TransformTask.run` for the task of a bundle, and
        `sprat.tasks.transform.run`, which takes no effort.
        """
        self._check_size(text, "text")
        for value in (inputs or {}).values():
            self._check_size(value, "inputs")
        if isinstance(spec, str):
            task = self.registry.task(spec)
            if isinstance(task, TransformTask):
                answer = task.run(
                    text, inputs=inputs, effort=effort, deadline=deadline, mailbox=self._mailbox
                )
                return self._logged_stream(spec, text, answer)
        _check_no_effort(effort)
        asked = spec
        spec, version = self._spec(spec, TransformSpec)
        found = require_generative(self.registry.model(spec.model), "transform")
        self._check_size(spec.prompt, "prompt")
        if spec.grammar is not None:
            self._check_size(spec.grammar.source, "grammar")
        chunks = transform.run(
            found, text, spec, inputs=inputs, deadline=deadline, mailbox=self._mailbox
        )
        if not isinstance(asked, str):
            return chunks
        return self._logged_stream(asked, text, _versioned(chunks, version))

    async def decide(
        self,
        questions: str | QuestionSet,
        texts: Sequence[str],
        *,
        partial: bool = False,
        deadline: float = math.inf,
    ) -> DecideResult:
        """Answer questions of a task, or the request's own, about texts.

        See `sprat.tasks.decide.run`.
        """
        asked = questions
        questions, version = self._spec(questions, QuestionSet)
        found = require_generative(self.registry.model(questions.model), "decide")
        self._check_texts(texts)
        self._check_size(questions.instructions, "instructions")
        for index, question in enumerate(questions.questions):
            self._check_size(question.name + question.text, f"questions[{index}]")
            for number, option in enumerate(question.options):
                field = f"questions[{index}].options[{number}]"
                self._check_size(option.name + option.description, field)
        result = await decide.run(
            found,
            texts,
            questions,
            partial=partial,
            deadline=deadline,
            mailbox=self._mailbox,
        )
        return self._logged(asked, texts, replace(result, task_version=version))

    def _spec(self, given: str | _Spec, wanted: type[_Spec]) -> tuple[_Spec, str]:
        """What is asked, and the version of the task; none where a request brings it itself.

        Raises
        ------
        NotFound, TaskNotSupported
            When there is no such task, or it is of another kind.
        """
        if not isinstance(given, str):
            return given, ""
        task = self.registry.task(given)
        if isinstance(task, NamedTask) and isinstance(task.spec, wanted):
            return task.spec, task.info.version
        raise _cannot(task.info, VERBS[wanted])

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        truncation: Truncation = "refuse",
        partial: bool = False,
        deadline: float = math.inf,
    ) -> EmbedResult:
        """Embed texts with an encoder. See `sprat.tasks.embed.run`."""
        found = require_encoder(self.registry.model(model), "embed")
        self._check_texts(texts)
        return await embed.run(
            found,
            texts,
            truncation=truncation,
            partial=partial,
            deadline=deadline,
            mailbox=self._mailbox,
        )

    async def token_states(self, model: str, texts: Sequence[str]) -> list[TokenStates]:
        """States of the tokens of texts of any length: what taggers are trained on.

        See `sprat.model.EncoderModel.states`.
        """
        found = require_states(self.registry.model(model), "token_states")
        encoded = await found.states(texts, long_input="chunk", mailbox=self._mailbox)
        return [item for item in encoded.items if item is not None]

    def generate(
        self,
        model: str,
        prompt: str | Sequence[Message],
        sampling: Sampling,
        *,
        adapter: str = "",
        sequences: int = 1,
        logprobs: int | None = None,
        deadline: float = math.inf,
    ) -> AsyncGenerator[Chunk, None]:
        """Stream an answer of a generative model. See `sprat.tasks.generate.run`."""
        found = require_generative(self.registry.model(model), "generate")
        if isinstance(prompt, str):
            self._check_size(prompt, "prompt")
        else:
            for index, message in enumerate(prompt):
                self._check_size(message.content, f"chat.messages[{index}].content")
        return generate.run(
            found,
            prompt,
            sampling,
            adapter=adapter,
            sequences=sequences,
            logprobs=logprobs,
            deadline=deadline,
            mailbox=self._mailbox,
        )

    async def tokenize(self, model: str, texts: Sequence[str]) -> TokenizeResult:
        """Show how a model cuts texts into tokens."""
        started = time.perf_counter_ns()
        found = self.registry.model(model)
        self._check_texts(texts)
        items = await found.tokenize(texts)
        elapsed = time.perf_counter_ns() - started
        return TokenizeResult(
            items=tuple(items),
            max_tokens=found.info.max_tokens,
            model=found.info.name,
            model_version=found.info.version,
            timings=Timings(tokenize_ns=elapsed, total_ns=elapsed),
        )

    async def feedback(self, request_id: str, label: str, item: int) -> None:
        """Say what is right for a text that a task answered.

        See `sprat.decision_log.DecisionLog.feedback`.

        Raises
        ------
        ConfigError
            There is no decision log.
        """
        if self._decisions is None:
            raise ConfigError("log.path", "empty: no decision log is kept, and no feedback")
        await self._decisions.feedback(request_id, label, item)

    def _learn(self, decision: Decision) -> None:
        """Tell a task what became known of an answer."""
        if (watched := self._watched(decision.task)) is not None:
            watched.learn(decision)

    def _watched(self, task: str) -> Escalation[Any, Any] | None:
        """The task, if its drift is watched."""
        found = self.registry.tasks.get(task)
        if isinstance(found, RouteTask):
            found = found.classifier
        return found if isinstance(found, Escalation) else None

    def _logged(
        self,
        task: str | Spec,
        texts: Sequence[str],
        result: _Logged,
        *,
        truncation: Truncation = "refuse",
        effort: Effort = Effort(),
    ) -> _Logged:
        """Hand the answers of a task to the decision log; returns them with the id of the call."""
        if self._decisions is None or not isinstance(task, str):
            return result
        request_id = self._decisions.put(task, texts, result)
        # A threshold of the request's own says nothing of those of the task.
        if self._shadows is not None and effort.accept_at is None:
            self._offer(self._shadows, task, request_id, texts, result, truncation)
        return replace(result, request_id=request_id)

    async def _logged_stream(
        self, task: str, text: str, chunks: AsyncGenerator[Chunk, None]
    ) -> AsyncGenerator[Chunk, None]:
        """The same chunks; what the last one says of the answer goes to the decision log.

        No shadows: a rewriting is no label that could be compared.
        """
        async with aclosing(chunks):
            async for chunk in chunks:
                if chunk.finish_reason is None or self._decisions is None:
                    yield chunk
                    continue
                result = TransformResult(
                    (chunk,),
                    (),
                    chunk.model,
                    chunk.model_version,
                    chunk.task_version,
                    chunk.calibrated,
                    chunk.timings,
                )
                yield replace(chunk, request_id=self._decisions.put(task, [text], result))

    def _offer(
        self,
        shadows: Shadows,
        task: str,
        request_id: str,
        texts: Sequence[str],
        result: Result,
        truncation: Truncation,
    ) -> None:
        """Have the last tier of a cascade asked too, of a share of texts that it did not answer."""
        found = self.registry.task(task)
        ask: Ask
        if isinstance(found, RouteTask):
            found = found.classifier
        if isinstance(found, ClassifyTask):
            asking = found.asking(
                top_k=1, truncation=truncation, partial=True, mailbox=self._mailbox
            )
            ask = functools.partial(found.ask_last, asking)
        elif isinstance(found, ModerateTask):
            ask = functools.partial(
                found.ask_last, found.asking(partial=True, mailbox=self._mailbox)
            )
        else:
            # An extraction is no label that could be compared.
            return
        shadows.offer(task, request_id, texts, result, last=found.last, ask=ask)

    def list_tasks(self) -> tuple[TaskInfo, ...]:
        """Every task, sorted by name."""
        return tuple(map(self.task_info, self.registry.tasks))

    def task_info(self, name: str) -> TaskInfo:
        """One of `list_tasks`.

        Raises
        ------
        NotFound
            When there is no such task.
        """
        info = self.registry.task(name).info
        if self._decisions is None or info.kind not in LOGGED_KINDS:
            return info
        return replace(info, log=self._decisions.use(name))

    def task_tiers(self, name: str) -> tuple[TierInfo, ...]:
        """What the tiers of a task of a bundle have done, also a single one; none of other tasks.

        Raises
        ------
        NotFound
            When there is no such task.
        """
        found = self._watched(name)
        return self.registry.task(name).info.tiers if found is None else found.tier_infos

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Every loaded model, sorted by name."""
        return tuple(
            replace(model.info, prefix_use=model.prefix_use)
            if isinstance(model, GenerativeModel)
            else model.info
            for model in self.registry.models.values()
        )

    def _check_texts(self, texts: Sequence[str]) -> None:
        limit = self._limits.max_texts
        if not 1 <= len(texts) <= limit:
            raise InvalidInput(
                f"texts: expected 1 to {limit} texts, got {len(texts)}", field="texts"
            )
        for index, text in enumerate(texts):
            self._check_size(text, f"texts[{index}]")

    def _check_size(self, text: str, field: str) -> None:
        limit = self._limits.max_text_bytes
        # A character takes at most four bytes: short texts need no encoding to be measured.
        if 4 * len(text) > limit and (size := len(text.encode("utf-8", "replace"))) > limit:
            raise InvalidInput(f"{field}: {size} bytes, at most {limit} are accepted", field=field)


def _check_no_effort(effort: Effort) -> None:
    for field, value in asdict(effort).items():
        if value is not None:
            raise InvalidInput(f"{field}: only tasks of bundles take it", field=field)


def _cannot(task: TaskInfo, verb: str) -> TaskNotSupported:
    return TaskNotSupported(
        f"task {task.name} is a task of kind {task.kind}, and cannot {verb}",
        metadata={"task": task.name, "kind": task.kind},
    )


async def _versioned(
    chunks: AsyncGenerator[Chunk, None], version: str
) -> AsyncGenerator[Chunk, None]:
    """The same chunks; the last one says which version of the task answered."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield replace(chunk, task_version=version) if chunk.finish_reason else chunk


def _warn(budget: CpuBudget) -> None:
    available = min(budget.affinity, budget.physical)
    if budget.quota is not None:
        available = min(available, max(1, int(budget.quota)))
    if budget.threads > available:
        log.warning(
            "compute.threads is %d, but this process has only %d: they will slow each other down",
            budget.threads,
            available,
        )
