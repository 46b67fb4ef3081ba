"""Generators on llama.cpp: many sequences in one batch, through the low-level API.

Every step plans a batch, decodes it, and only then moves the sequences on: a batch that fails
leaves those that were not in it as they were.

What aborts a llama.cpp process is made impossible: `sprat.engine.llama_lane` refuses a batch that
is too large, names a sequence that is not there or asks for more than one output of a sequence;
here, no token gets in that is not of the vocabulary.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sprat.engine import llama_lib
from sprat.engine.base import Progress, Start
from sprat.engine.llama_adapter import Adapter, find_adapter
from sprat.engine.llama_chooser import PREFIXES, Chooser, option_cells
from sprat.engine.llama_context import CELL_BLOCK
from sprat.engine.llama_draft import MOST_DRAFT, Drafter
from sprat.engine.llama_grammar import Compiler, LlamaGrammar
from sprat.engine.llama_lane import BATCH_TOKENS, NO_CELLS, Lane, Row
from sprat.engine.llama_lane_prefixes import Prefixes
from sprat.engine.llama_load import chat_template, load_model
from sprat.engine.llama_sampler import Sampler
from sprat.engine.llama_sequence import LiveSequence
from sprat.engine.llama_spelling import Spelling, spell
from sprat.engine.llama_verify import choose_all
from sprat.engine.llama_vocab import Vocabulary
from sprat.engine.stream import TextStream
from sprat.errors import (
    EngineError,
    InputTooLong,
    InvalidInput,
    SpratError,
    TaskNotSupported,
    UnsupportedModel,
)
from sprat.values import Grammar, IntArray, Message

if TYPE_CHECKING:
    from sprat.engine.chat import ChatTemplate

DEFAULT_CONTEXT = 8192
"""Longest sequence unless more is asked for: the trained context of some models would take
gigabytes for cells that nobody uses."""

DEFAULT_SHARE = 1024
"""Tokens that each place but the longest can hold, unless ``cells`` says otherwise: prompt and
answer of narrow, high-volume work."""

SPARE_PLACES = 2
"""Prefixes that are kept for prompts that begin alike. Each takes the cells of one sequence."""


class LlamaEngine:
    """A generative model. See `sprat.engine.base.GenerativeEngine`.

    Every sequence has a place of its own among those that share the cells evenly, and one of them
    can be ``context_length`` long instead, in a context of its own. So short answers run side by
    side in one pass, and a long prompt finds room without memory for ``sequence_limit`` such.

    Parameters
    ----------
    path : Path
        GGUF file.
    context_length : int, optional
        Most tokens of a sequence, up to the trained context. Absent: that, but at most 8,192.
    sequence_limit : int, default 8
        Most live sequences, 1 to 256.
    cells : int, optional
        Tokens that are held at most: memory, about 23 KB each for a model of 135 million weights.
        Absent: ``context_length``, and 1,024 for each sequence.
    choice_cells : int, default 4096
        Tokens that all choices hold at most, as for ``cells``; taken at the first choice.
    threads : int
        Compute threads until `step` says otherwise.
    adapters : mapping of str to Path, optional
        GGUF files of LoRA adapters for this model, by name. Sequences of one adapter run at a time.

    Raises
    ------
    EngineError
        llama.cpp is missing or does not fit this machine, there is not enough memory, or a number
        is out of range.
    CorruptFile
        llama.cpp cannot load the file.
    UnsupportedModel
        The model cannot generate text from text.
    """

    def __init__(
        self,
        path: Path,
        *,
        context_length: int | None = None,
        sequence_limit: int = 8,
        cells: int | None = None,
        choice_cells: int = 4096,
        threads: int,
        adapters: Mapping[str, Path] | None = None,
    ) -> None:
        self._lib = llama_lib.load()
        most = self._lib.llama_max_parallel_sequences()
        if not 1 <= sequence_limit <= most:
            raise EngineError(f"sequence_limit: expected 1 to {most}, got {sequence_limit}")
        self._lanes: list[Lane] = []
        self._prefixes: dict[Lane, Prefixes] = {}
        self._live: dict[int, LiveSequence] = {}
        self._running: deque[LiveSequence] = deque()
        self._filling: deque[LiveSequence] = deque()
        self._started = 0
        self._chooser: Chooser | None = None
        self._choice_cells = choice_cells
        self._threads = threads
        self._model = load_model(self._lib, path)
        self._adapters: dict[str, Adapter] = {}
        try:
            self.adapters = frozenset(adapters or ())
            self.step_tokens: dict[int, int] = {}
            for name, file in (adapters or {}).items():
                self._adapters[name] = Adapter(self._lib, self._model, file)
            trained = int(self._lib.llama_model_n_ctx_train(self._model))
            wanted = DEFAULT_CONTEXT if context_length is None else context_length
            self.context_length = min(trained, wanted)
            if self.context_length < 2:
                raise EngineError(f"context_length: expected at least 2, got {self.context_length}")
            self.sequence_limit = sequence_limit
            self.choice_prefixes = PREFIXES
            self._vocabulary = Vocabulary(self._lib, self._model)
            self._template = chat_template(self._lib, self._model, self._vocabulary)
            self._compiler = Compiler(self._vocabulary)
            # Blank chats have few forms.
            self._structure = functools.lru_cache(maxsize=256)(self._find_structure)
            for places, capacity in _shares(self.context_length, sequence_limit, cells):
                lane = Lane(
                    self._lib,
                    self._model,
                    places=places,
                    # Copies of long places would cost more memory and time than they save.
                    spare=SPARE_PLACES if capacity <= DEFAULT_SHARE else 0,
                    capacity=capacity,
                    threads=threads,
                )
                self._lanes.append(lane)
                self._prefixes[lane] = Prefixes(lane)
                lane.warm_up(token=0)
            self.answer_prefixes = max(len(lane.spare) for lane in self._lanes)
        except BaseException:
            self.close()
            raise

    # Any thread.

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> IntArray:
        """See `sprat.engine.base.GenerativeEngine.tokenize`.

        A prompt is there to be continued: of special tokens, only the one that begins it is added.
        """
        ids = self._vocabulary.tokenize(text, parse_special=parse_special)
        return self._vocabulary.with_bos(ids) if add_special else ids

    def token_texts(self, ids: IntArray) -> tuple[str, ...]:
        """See `sprat.engine.base.GenerativeEngine.token_texts`."""
        self._check_ids(ids)
        return tuple(map(self._vocabulary.text, ids.tolist()))

    def chat_tokens(self, messages: Sequence[Message]) -> IntArray:
        """See `sprat.engine.base.GenerativeEngine.chat_tokens`.

        Raises
        ------
        TaskNotSupported
            The model has no chat template.
        UnsupportedModel
            Its template is malformed or fails.
        InvalidInput
            There are no messages, its template refuses them, or it would make special tokens of a
            content.
        """
        if not messages:
            raise InvalidInput("expected at least 1 message, got none", field="chat")
        if self._template is None:
            raise TaskNotSupported("this model has no chat template; send a raw prompt instead")
        if isinstance(self._template, UnsupportedModel):
            raise UnsupportedModel(self._template.message)
        from sprat.engine.chat import blanked

        ids = self._rendered(self._template, messages)
        # The structure of a chat is in its roles: contents must not change it.
        if self._controls(ids) != self._structure(self._template, tuple(blanked(messages))):
            raise InvalidInput(
                "a content would become special tokens in the chat template", field="chat"
            )
        return ids

    def _rendered(self, template: ChatTemplate, messages: Sequence[Message]) -> IntArray:
        parts = template.render(messages, protect=self._vocabulary.controls)
        rows = [self._vocabulary.tokenize(part, parse_special=True) for part in parts]
        return self._vocabulary.with_bos(np.concatenate(rows))

    def _find_structure(self, template: ChatTemplate, messages: tuple[Message, ...]) -> list[int]:
        return self._controls(self._rendered(template, messages))

    def _controls(self, ids: IntArray) -> list[int]:
        found: list[int] = ids[self._vocabulary.is_control[ids]].tolist()
        return found

    def compile(self, grammar: Grammar) -> LlamaGrammar:
        """See `sprat.engine.base.GenerativeEngine.compile`."""
        return self._compiler.compile(grammar)

    def spell(self, text: str, grammar: LlamaGrammar | None = None) -> Spelling:
        """See `sprat.engine.llama_spelling.spell`."""
        matcher = None if grammar is None else grammar.matcher()
        return spell(self._vocabulary, text, self.turn_end(), matcher)

    def most_choice_tokens(self, options: Sequence[IntArray]) -> int:
        """See `sprat.engine.base.GenerativeEngine.most_choice_tokens`."""
        longest = max(map(len, options))
        room = self._choice_cells - option_cells(options)
        return max(0, min(room, self.context_length - longest))

    def turn_end(self) -> int:
        """The token with which the chat template ends an answer; EOS where it says none."""
        answered = [Message("user", "x"), Message("assistant", "x"), Message("user", "x")]
        try:
            asked, whole = self.chat_tokens(answered[:1]), self.chat_tokens(answered)
        except SpratError:
            return self._vocabulary.end_id
        if not np.array_equal(whole[: len(asked)], asked):
            return self._vocabulary.end_id
        ends = (token for token in whole[len(asked) :].tolist() if self._vocabulary.is_end(token))
        return next(ends, self._vocabulary.end_id)

    # The owner's thread.

    def chooser(self) -> Chooser:
        """See `sprat.engine.base.GenerativeEngine.chooser`."""
        if self._chooser is None:
            self._chooser = Chooser(
                self._lib,
                self._model,
                cells=self._choice_cells,
                end=self.turn_end(),
                vocabulary_size=self._vocabulary.size,
                threads=self._threads,
                adapters=self._adapters,
            )
        return self._chooser

    def busy(self) -> bool:
        """See `sprat.engine.base.GenerativeEngine.busy`."""
        return bool(self._live)

    def has_room(self, tokens: int, adapter: str = "") -> bool:
        """See `sprat.engine.base.GenerativeEngine.has_room`."""
        # All live sequences work under the same one.
        others = next(iter(self._live.values()), None)
        if others is not None and others.adapter != adapter:
            return False
        return len(self._live) < self.sequence_limit and any(
            lane.has_room(tokens) for lane in self._lanes
        )

    def start(self, start: Start) -> None:
        """See `sprat.engine.base.GenerativeEngine.start`.

        Raises
        ------
        InvalidInput, InputTooLong
            A prompt that is empty, leaves no room for an answer or is not of this vocabulary, or
            sampling parameters out of range.
        EngineError
            The sequence is live already, or there is no room.
        """
        prompt, sampling = np.asarray(start.prompt, np.int32), start.sampling
        if start.sequence in self._live:
            raise EngineError(f"sequence {start.sequence} is live already")
        if not len(prompt):
            raise InvalidInput("expected a prompt of at least 1 token, got none", field="prompt")
        if len(prompt) >= self.context_length:
            raise InputTooLong(field="prompt", tokens=len(prompt), limit=self.context_length - 1)
        self._check_ids(prompt)
        if not 0 <= start.shared < len(prompt):
            raise EngineError(f"shared: expected 0 to {len(prompt) - 1}, got {start.shared}")
        grammar = start.grammar
        if not (grammar is None or isinstance(grammar, LlamaGrammar)):
            raise EngineError(f"grammar: was compiled by another engine ({type(grammar).__name__})")
        for name, good in (
            ("max_tokens", sampling.max_tokens >= 1),
            ("temperature", 0 <= sampling.temperature < np.inf),
            ("top_k", sampling.top_k >= 0),
            ("top_p", 0 < sampling.top_p <= 1),
            ("min_p", 0 <= sampling.min_p <= 1),
            ("repeat_penalty", 0 < sampling.repeat_penalty < np.inf),
        ):
            if not good:
                raise InvalidInput(
                    f"{name} is out of range: {getattr(sampling, name)}", field=f"sampling.{name}"
                )
        grown = min(len(prompt) + sampling.max_tokens, self.context_length)
        if not self.has_room(grown, start.adapter):
            raise EngineError(f"no room for a sequence of {grown} tokens")
        lane = next(lane for lane in self._lanes if lane.has_room(grown))
        lane.use(find_adapter(self._adapters, start.adapter))
        can_draft = start.lookup and lane.can_roll_back
        sequence = LiveSequence(
            start.sequence,
            self._started,
            lane,
            self._vocabulary,
            prompt,
            prompt,
            left=grown - len(prompt),
            sampler=Sampler(sampling, prompt),
            stream=TextStream(sampling.stop),
            matcher=None if grammar is None else grammar.matcher(),
            drafter=Drafter(prompt) if can_draft else None,
            logprobs=start.logprobs,
            shared=start.shared,
            adapter=start.adapter,
        )
        self._started += 1
        lane.enter(sequence)
        self._live[start.sequence] = sequence
        self._filling.append(sequence)
        self._look_up(sequence)

    def _look_up(self, sequence: LiveSequence) -> None:
        """Have a sequence take, make or await the prefix that it shares."""
        found = self._prefixes[sequence.lane].lookup(sequence)
        sequence.is_making, sequence.is_waiting = found == "make", found == "wait"
        if found == "taken":
            sequence.skip_prefix()

    def _check_ids(self, ids: IntArray) -> None:
        if len(ids) and not (ids.min() >= 0 and ids.max() < self._vocabulary.size):
            raise InvalidInput(
                f"expected token ids from 0 to {self._vocabulary.size - 1}, "
                f"got {ids.min()} to {ids.max()}",
                field="prompt",
            )

    def stop(self, sequence: int) -> None:
        """See `sprat.engine.base.GenerativeEngine.stop`."""
        if sequence in self._live:
            self._release(self._live[sequence])

    def _release(self, sequence: LiveSequence) -> None:
        del self._live[sequence.number]
        queue = self._running if sequence in self._running else self._filling
        queue.remove(sequence)
        self._prefixes[sequence.lane].left(sequence)
        sequence.lane.leave(sequence)

    def step(self, *, max_tokens: int, threads: int) -> list[Progress]:
        """See `sprat.engine.base.GenerativeEngine.step`."""
        progress: list[Progress] = []
        plan = self._plan(min(max_tokens, BATCH_TOKENS))
        self.step_tokens = {sequence.number: count for sequence, count in plan.items()}
        for lane in self._lanes:
            planned = sorted((s for s in plan if s.lane is lane), key=lambda s: s.place)
            if planned:
                progress += self._decode(lane, planned, plan, threads)
        return progress

    def _plan(self, max_tokens: int) -> dict[LiveSequence, int]:
        """Who decodes how many tokens: what answers grew by, then prompts what they need.

        Who was served goes to the end of its queue, so that turns are fair from step to step. A
        prompt gets its slice whole: slices of several prompts would take a pass each.
        """
        plan: dict[LiveSequence, int] = {}
        # A crowd of answers does not keep prompts out.
        answers = max(1, max_tokens - 1) if self._filling else max_tokens
        for queue, room in ((self._running, answers), (self._filling, max_tokens)):
            for _ in range(len(queue)):
                sequence = queue[0]
                room = min(room, max_tokens)
                count = min(self._wanted(sequence), room)
                if room < 1:
                    break
                if count and count == len(sequence.ids) and len(self._live) == 1:
                    # Among others every token of a batch costs more than a guess is worth.
                    count += sequence.guess(min(room - count, MOST_DRAFT))
                if count:
                    plan[sequence] = count
                room -= count
                max_tokens -= count
                queue.rotate(-1)
        return plan

    def _wanted(self, sequence: LiveSequence) -> int:
        """How many tokens a sequence would decode now; 0 while another one decodes its prefix."""
        if sequence.is_waiting:
            self._look_up(sequence)
        if sequence.is_waiting:
            return 0
        if sequence.is_making:
            return sequence.shared - sequence.position
        return len(sequence.ids)

    def _decode(
        self,
        lane: Lane,
        planned: list[LiveSequence],
        plan: dict[LiveSequence, int],
        threads: int,
    ) -> Iterable[Progress]:
        rows = [
            Row(
                s.place,
                s.ids[: plan[s]],
                s.position,
                outputs=1 + len(s.draft) if plan[s] == len(s.ids) else 0,
            )
            for s in planned
        ]
        status = lane.decode(rows, threads=threads)
        if status:
            # Without cells for all, the youngest gives its own up, and the others try again.
            failed = [max(planned, key=lambda s: s.order)] if status == NO_CELLS else planned
            for sequence in failed:
                self._release(sequence)
            error = f"llama.cpp cannot decode a batch of {len(rows)} sequences (status {status})"
            return [Progress(sequence.number, "", 0, error=error) for sequence in failed]
        for sequence, row in zip(planned, rows, strict=True):
            sequence.position += len(row.ids)
            sequence.ids = sequence.ids[len(row.ids) :]
            if sequence.is_making and sequence.position == sequence.shared:
                self._prefixes[lane].offer(sequence)
                sequence.is_making = False
        complete = [s for s, row in zip(planned, rows, strict=True) if row.outputs]
        if not complete:
            return []
        logits_bv = lane.logits(sum(row.outputs for row in rows))
        stuck = choose_all(complete, logits_bv)
        return [self._settle(sequence, sequence in stuck) for sequence in complete]

    def _settle(self, sequence: LiveSequence, stuck: bool) -> Progress:
        """Move a sequence on by the tokens that were chosen for it."""
        if not stuck:
            sequence.settle()
        if sequence.matcher is not None and sequence.matcher.has_failed:
            stuck = True
        if stuck:
            self._release(sequence)
            error = "there is no token to choose: the model's logits are not finite"
            if sequence.matcher is not None:
                error += ", or the grammar became too complex"
            return Progress(sequence.number, "", 0, error=error)
        if sequence.reason is not None:
            self._release(sequence)
        elif sequence not in self._running:
            self._filling.remove(sequence)
            self._running.append(sequence)
        return sequence.progress()

    def close(self) -> None:
        """See `sprat.engine.base.GenerativeEngine.close`."""
        for sequence in list(self._live.values()):
            self._release(sequence)
        self._prefixes.clear()
        while self._lanes:
            self._lanes.pop().close()
        if self._chooser is not None:
            self._chooser.close()
            self._chooser = None
        while self._adapters:
            self._adapters.popitem()[1].close()
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None


def _shares(context_length: int, sequence_limit: int, cells: int | None) -> list[tuple[int, int]]:
    """Places and tokens of each: those for all sequences at once, and the one for the longest."""
    whole = sequence_limit * context_length
    if cells is None:
        cells = min(context_length + sequence_limit * min(DEFAULT_SHARE, context_length), whole)
    if cells >= whole:
        return [(sequence_limit, context_length)]
    share = (cells - context_length) // sequence_limit // CELL_BLOCK * CELL_BLOCK
    if share < CELL_BLOCK:
        raise EngineError(
            f"cells: expected at least {context_length + sequence_limit * CELL_BLOCK} for one "
            f"sequence of {context_length} tokens and a place for each of {sequence_limit}, "
            f"got {cells}"
        )
    return [(sequence_limit, share), (1, context_length)]
