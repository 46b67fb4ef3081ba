"""What an endpoint has answered in runs that were stopped, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

from pydantic import TypeAdapter, ValidationError

import sprat
from sprat.asked_manifest import AnyRemote, Remote, RemoteCategories, RemoteFields, RemoteRewriting
from sprat.endpoints.base import (
    Endpoint,
    OnSaid,
    Question,
    SaidCategories,
    SaidFields,
    SaidLabel,
    SaidT,
    SaidText,
    TextQuestion,
    tell,
)
from sprat.endpoints.guard import Guard
from sprat.errors import DataError, InvalidInput, SpratError, StoreError
from sprat.train.journal import Journal, Row


class KeptAnswers:
    """Answers of one endpoint, kept until what they were for is written.

    Each question has a journal of its own: what is asked, then a line for each answer, as soon as
    it is there. Texts stand there as digests only. `close` it, or `drop` the answers.

    Parameters
    ----------
    folder : Path
        Where the journals are, 0700.
    name, url : str
        Of the endpoint: answers of another one under the same name do not count.
    restart : bool
        Drop what stopped runs left.

    Attributes
    ----------
    found : int
        Texts that a stopped run had an answer to.
    count : int
        Answers that are kept.
    """

    def __init__(self, folder: Path, name: str, url: str, *, restart: bool = False) -> None:
        self.found = self.count = 0
        self._folder = folder
        self._name = name
        self._url = url
        self._restart = restart
        self._books: dict[Path, _Book[Any]] = {}
        self._texts, self._cpu_ms = 0, 0.0

    def over(self, endpoint: Endpoint) -> Endpoint:
        """The same endpoint, asked only for what is not there."""
        return _Keeping(self, endpoint)

    def cost_ms(self) -> float:
        """CPU milliseconds that asking about a text took, in this run and stopped ones.

        Raises
        ------
        InvalidInput
            Nobody knows.
        """
        if not self._texts:
            raise InvalidInput(
                "--remote-cost-ms: expected it, since a stopped run has asked about all rows and "
                "not said what that took; or --restart",
                field="remote_cost_ms",
            )
        return max(self._cpu_ms / self._texts, 1e-6)

    def close(self) -> None:
        """Let other processes have the answers; a second time does nothing."""
        for book in self._books.values():
            if not book.answers:
                book.journal.finish({})
            book.journal.close()
        self._books.clear()

    def drop(self) -> None:
        """Forget the answers: what they were for is written."""
        for book in self._books.values():
            book.answers.clear()
        self.count = 0
        self.close()

    def book(self, said: type[SaidT], asked: AnyRemote, **more: Any) -> _Book[SaidT]:
        """The answers to a question.

        Raises
        ------
        DataError
            What is there is no journal of answers.
        StoreError
            It cannot be written, or another process asks the same question.
        """
        run = {
            "run": "answers",
            "url": self._url,
            "made_by": f"sprat {sprat.__version__}",
            "asked": asked.model_dump(mode="json"),
            **more,
        }
        digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{self._name}-{digest}"
        if path not in self._books:
            try:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"{self._folder} cannot be written: {error.strerror}") from None
            self._books[path] = _Book(Journal(path, run, restart=self._restart), said)
            for row in self._books[path].journal.rows:
                self.note(row)
        return self._books[path]

    def note(self, row: Row) -> None:
        """Count a line of a journal."""
        if "said" in row:
            self.count += 1
        elif "cpu_ms" in row:
            self._texts += int(row["texts"])
            self._cpu_ms += float(row["cpu_ms"])


class _Book(Generic[SaidT]):
    """The answers to one question, by the digests of their texts.

    Attributes
    ----------
    earlier : frozenset of str
        Digests of texts that a stopped run had an answer to.
    """

    def __init__(self, journal: Journal, said: type[SaidT]) -> None:
        self.journal = journal
        self.type = TypeAdapter(said)
        try:
            self.answers = {
                str(row["text"]): self.type.validate_python(row["said"])
                for row in journal.rows
                if "said" in row
            }
        except (KeyError, ValidationError):
            journal.close()
            raise DataError(
                str(journal.path), 0, "has a line that is no answer; use --restart"
            ) from None
        self.earlier = frozenset(self.answers)


class _Keeping:
    """See `Endpoint`."""

    def __init__(self, kept: KeptAnswers, endpoint: Endpoint) -> None:
        self._kept = kept
        self._endpoint = endpoint

    @property
    def name(self) -> str:
        """See `Endpoint`."""
        return self._endpoint.name

    @property
    def guard(self) -> Guard:
        """See `Endpoint`."""
        return self._endpoint.guard

    def labels(self, asked: Remote) -> Question[SaidLabel]:
        """See `Endpoint.labels`."""
        question = self._endpoint.labels(asked)
        return _KeptQuestion(question, self._kept, self._kept.book(SaidLabel, asked))

    def categories(self, asked: RemoteCategories) -> Question[SaidCategories]:
        """See `Endpoint.categories`."""
        question = self._endpoint.categories(asked)
        return _KeptQuestion(question, self._kept, self._kept.book(SaidCategories, asked))

    def fields(self, asked: RemoteFields) -> Question[SaidFields]:
        """See `Endpoint.fields`."""
        question = self._endpoint.fields(asked)
        return _KeptQuestion(question, self._kept, self._kept.book(SaidFields, asked))

    def texts(
        self, asked: RemoteRewriting, *, schema: str | None, has_logprobs: bool
    ) -> TextQuestion:
        """See `Endpoint.texts`."""
        more: dict[str, Any] = {"schema": schema, "has_logprobs": has_logprobs}
        question = self._endpoint.texts(asked, **more)
        return _KeptQuestion(question, self._kept, self._kept.book(SaidText, asked, **more))

    async def task_version(self, kind: str, labels: Sequence[str]) -> str:
        """See `Endpoint.task_version`."""
        return await self._endpoint.task_version(kind, labels)

    async def aclose(self) -> None:
        """See `Endpoint.aclose`."""
        await self._endpoint.aclose()


class _KeptQuestion(Generic[SaidT]):
    """See `Question` and `TextQuestion`. The same text is asked about once."""

    def __init__(
        self, question: Question[SaidT] | TextQuestion, kept: KeptAnswers, book: _Book[SaidT]
    ) -> None:
        self._question: Any = question
        self._kept = kept
        self._book = book
        self._failure: StoreError | None = None

    async def ask(
        self,
        texts: Sequence[str],
        *,
        deadline: float,
        on_said: OnSaid[SaidT] | None = None,
        **inputs: Mapping[str, str],
    ) -> list[SaidT | SpratError]:
        """See `Question.ask`; ``inputs`` of a `TextQuestion`.

        Raises
        ------
        StoreError
            An answer cannot be written.
        """
        keys = [_digest(text, inputs) for text in texts]
        answers = self._book.answers
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in answers}
        self._kept.found += sum(key in self._book.earlier for key in keys)
        failed: dict[str, SpratError] = {}
        if missing:
            failed = await self._ask(missing, deadline, inputs)
        heard = [failed[key] if key in failed else answers[key] for key in keys]
        tell(heard, on_said)
        return heard

    async def _ask(
        self, missing: Mapping[str, str], deadline: float, inputs: Mapping[str, Any]
    ) -> dict[str, SpratError]:
        """Keep what is said of texts; returns what is said of none, by their keys."""
        keys = list(missing)
        started = time.process_time()
        heard = await self._question.ask(
            list(missing.values()),
            deadline=deadline,
            on_said=lambda at, said: self._keep(keys[at], said),
            **inputs,
        )
        if self._failure is not None:
            raise self._failure
        spent = {"texts": len(keys), "cpu_ms": (time.process_time() - started) * 1e3}
        self._book.journal.append(spent)
        self._kept.note(spent)
        return {
            key: said for key, said in zip(keys, heard, strict=True) if isinstance(said, SpratError)
        }

    def _keep(self, key: str, said: SaidT) -> None:
        self._book.answers[key] = said
        row = {"text": key, "said": self._book.type.dump_python(said, mode="json")}
        try:
            self._book.journal.append(row)
            self._kept.note(row)
        except StoreError as error:
            # The loop would only log it.
            self._failure = error
        except ValueError:
            # No number, or half a character: the next run asks for such an answer again.
            return


def _digest(text: str, inputs: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([text, inputs], sort_keys=True).encode()).hexdigest()
