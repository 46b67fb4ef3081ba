"""A llama.cpp context that says how probable options are after a prompt; generates nothing.

What prompts have in common is decoded once and forked (`sprat.engine.llama_chooser_prefixes`): in a
context whose sequences share their cells (``kv_unified``) that costs microseconds. A cell in use
costs attention to all, which is why few prefixes are kept, and why answers are generated in a
context of another kind (`sprat.engine.llama_lane`).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sprat.engine.base import MOST_OPTION_TOKENS, Choice, Chosen
from sprat.engine.label_trie import ROOT, LabelTrie, combine
from sprat.engine.llama_adapter import Adapter, apply, find_adapter
from sprat.engine.llama_chooser_prefixes import Prefix, Prefixes
from sprat.engine.llama_context import CELL_BLOCK, make_context
from sprat.engine.llama_lane import MOST_THREADS
from sprat.errors import EngineError, UnsupportedModel
from sprat.kernels import score_trie
from sprat.values import FloatArray, IntArray

BATCH_TOKENS = 256
"""Most tokens of a batch; one step never gets more."""

SEQUENCES = 96
"""Sequences of the context, and most rows of logits of a batch (llama.cpp wants no fewer): 19 MB
for a vocabulary of 49,152."""

PREFIXES = 3
"""Most prefixes that are kept. Each costs attention to every request."""

TEXTS = 8
"""Most texts side by side about which there may be several requests."""

CHOICES = 16
"""Most requests side by side."""

PRUNED_BELOW = 1e-3
"""Options that share a first part are not told apart where all of them together are less probable
(``constrained`` scoring only, and where `Choice.is_pruned` allows it). `Chosen.pruned` says what
that left open."""


@dataclass(slots=True, eq=False)
class _Live:
    """A request: its prompt in a sequence of its own, then its options in forks of that."""

    number: int
    choice: Choice
    trie: LabelTrie
    prefix: Prefix | None
    sequence: int
    missed: int = 0
    done: int = 0
    forked: bool = False
    decoded: int = 0
    log_shares: dict[int, dict[int, float]] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    def asks(self, node: int) -> bool:
        """Whether the logits after a node are needed still."""
        return node in self.trie.needed and node not in self.log_shares


@dataclass(slots=True)
class _Batch:
    """Tokens to decode, each in one or more sequences."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    sequences: list[tuple[int, ...]] = field(default_factory=list)
    outputs: list[tuple[_Live, int] | None] = field(default_factory=list)
    prefixes: list[tuple[Prefix, int]] = field(default_factory=list)
    forks: list[int] = field(default_factory=list)
    output_count: int = 0

    def add(
        self,
        ids: Iterable[int],
        position: int,
        sequences: tuple[int, ...],
        output: tuple[_Live, int] | None = None,
    ) -> None:
        """Add neighbouring tokens; ``output`` is what the logits of the last one are for."""
        start = len(self.ids)
        self.ids += ids
        count = len(self.ids) - start
        self.positions += range(position, position + count)
        self.sequences += [sequences] * count
        self.outputs += [None] * count
        self.outputs[-1] = output
        self.output_count += output is not None


class Chooser:
    """Scores options for several requests side by side. One thread at a time.

    Parameters
    ----------
    lib : module
        As `sprat.engine.llama_lib.load` returns it.
    model : pointer
        A loaded model, which outlives this object.
    cells : int
        Tokens that are held at most: kept prefixes, prompts and options of all live requests.
    end : int
        The token that ends an answer.
    vocabulary_size : int
        Number of logits.
    threads : int
        Compute threads until `step` says otherwise.
    adapters : mapping of str to Adapter
        By name. Requests under one adapter are live at a time.

    Attributes
    ----------
    step_tokens : dict of int to int
        See `ChoiceEngine`.

    Raises
    ------
    EngineError
        llama.cpp cannot make the context, mostly for want of memory; or the model has no token that
        ends an answer.
    UnsupportedModel
        The model is no plain decoder.
    """

    def __init__(
        self,
        lib: Any,
        model: Any,
        *,
        cells: int,
        end: int,
        vocabulary_size: int,
        threads: int,
        adapters: Mapping[str, Adapter],
    ) -> None:
        if end < 0:
            raise EngineError("the model has no token that ends an answer")
        self.cells = -(-cells // CELL_BLOCK) * CELL_BLOCK
        self._lib = lib
        self._end = end
        self._size = vocabulary_size
        self._threads = threads
        self._adapters = adapters
        self._adapter = ""
        self._context = make_context(
            lib,
            model,
            cells=self.cells,
            sequences=SEQUENCES,
            outputs=SEQUENCES,
            batch_tokens=BATCH_TOKENS,
            is_unified=True,
            threads=threads,
        )
        self._memory = lib.llama_get_memory(self._context)
        if not self._memory or lib.llama_n_ctx_seq(self._context) < self.cells:
            self.close()
            raise UnsupportedModel("expected a model with a cache of past tokens, found none")
        first_choice = PREFIXES + TEXTS
        self._prefixes = Prefixes(
            kept=list(range(PREFIXES)),
            texts=list(range(PREFIXES, first_choice)),
            forget=self._forget,
        )
        self.step_tokens: dict[int, int] = {}
        self._live: dict[int, _Live] = {}
        self._free_sequences = list(range(first_choice, first_choice + CHOICES))
        self._first_fork = first_choice + CHOICES
        self._steps = 0

    @property
    def busy(self) -> bool:
        """Whether a request is live."""
        return bool(self._live)

    def has_room(self, choice: Choice) -> bool:
        """Whether `start` would take it now; prefixes that nobody uses make way."""
        if self._live and choice.adapter != self._adapter:
            return False
        fits = self._cells_needed(choice) <= self.cells
        return bool(self._free_sequences) and self._prefixes.has_places(choice) and fits

    def _cells_needed(self, choice: Choice) -> int:
        """Most cells that the live requests and this one take, without prefixes of nobody's."""
        choices = [choice, *(live.choice for live in self._live.values())]
        prompts = sum(len(each.prompt) - max(each.shared, each.common) for each in choices)
        # Those of options come and go batch by batch.
        options = min(BATCH_TOKENS, sum(option_cells(each.options) for each in choices))
        return prompts + self._prefixes.cells(choice) + options

    def start(self, number: int, choice: Choice) -> None:
        """Take a request on.

        Parameters
        ----------
        number : int
            The caller's identifier, unique among the live ones.

        Raises
        ------
        InvalidInput
            Two options are the same to the model, or one has no tokens.
        EngineError
            There is no room; the number is live; or the prompt or an option is not what `Choice`
            says.
        """
        if number in self._live:
            raise EngineError(f"choice {number} is live already")
        self._check(choice)
        trie = LabelTrie(choice.options, end=self._end, scoring=choice.scoring)
        if not self.has_room(choice):
            raise EngineError(f"no room for a prompt of {len(choice.prompt)} tokens")
        if choice.adapter != self._adapter:
            apply(self._lib, self._context, find_adapter(self._adapters, choice.adapter))
            self._adapter = choice.adapter
        room = self.cells - self._cells_needed(choice)
        prefix = self._prefixes.enter(choice, room=room, now=self._steps)
        self._live[number] = _Live(number, choice, trie, prefix, self._free_sequences.pop())

    def _check(self, choice: Choice) -> None:
        """Keep from llama.cpp what would fail a batch, and so everybody else's request."""
        if not 0 <= choice.shared < len(choice.prompt):
            raise EngineError(
                f"expected a prompt of more than the {choice.shared} tokens that it shares, "
                f"got {len(choice.prompt)}"
            )
        if choice.common and not choice.shared < choice.common < len(choice.prompt):
            raise EngineError(
                f"expected more common tokens than the {choice.shared} that are shared and fewer "
                f"than the {len(choice.prompt)} of the prompt, got {choice.common}"
            )
        longest = max(map(len, choice.options), default=0)
        if not 1 <= longest <= MOST_OPTION_TOKENS:
            raise EngineError(
                f"expected options of 1 to {MOST_OPTION_TOKENS} tokens, got {longest}"
            )
        for ids in (choice.prompt, *choice.options):
            if len(ids) and not 0 <= ids.min() <= ids.max() < self._size:
                raise EngineError(
                    f"expected token ids from 0 to {self._size - 1}, got {ids.min()} to {ids.max()}"
                )

    def stop(self, number: int) -> None:
        """Drop a request; one that is not live is ignored."""
        live = self._live.pop(number, None)
        if live is None:
            return
        self._forget(live.sequence)
        self._free_sequences.append(live.sequence)
        self._prefixes.leave(live.prefix)

    def step(self, *, max_tokens: int, threads: int) -> list[Chosen]:
        """Decode one batch for the live requests, the oldest first.

        Parameters
        ----------
        max_tokens : int
            Most tokens of the batch, from `MOST_OPTION_TOKENS`: options are not cut in two.
        threads : int
            Compute threads, 1 to 512.

        Returns
        -------
        list of Chosen
            Requests that are finished, or failed.

        Raises
        ------
        EngineError
            A number is out of range. Nothing was changed.
        """
        if max_tokens < MOST_OPTION_TOKENS:
            raise EngineError(
                f"max_tokens: expected at least {MOST_OPTION_TOKENS}, got {max_tokens}"
            )
        if not 1 <= threads <= MOST_THREADS:
            raise EngineError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
        if not self._live:
            return []
        self._steps += 1
        # Here, not when its last request ends: the next one about the text may be about to start.
        self._prefixes.drop_texts()
        try:
            return self._step(min(max_tokens, BATCH_TOKENS), threads)
        except BaseException:
            self._forget_all()
            raise

    def _step(self, max_tokens: int, threads: int) -> list[Chosen]:
        batch = _Batch()
        self.step_tokens = {}
        for live in self._live.values():
            before = live.decoded
            self._plan(live, batch, max_tokens - len(batch.ids))
            if live.decoded > before:
                self.step_tokens[live.number] = live.decoded - before
        if len(batch.ids) == 1:
            self._add_company(batch)
        status = self._decode(batch, threads)
        if status:
            error = f"llama.cpp cannot decode {len(batch.ids)} tokens (status {status})"
            return [Chosen(number, error=error) for number in self._forget_all()]
        for prefix, count in batch.prefixes:
            prefix.done += count
        self._read(batch)
        for fork in batch.forks:
            self._forget(fork)
        finished = [live for live in self._live.values() if live.log_shares and not live.pending]
        return [self._finish(live) for live in finished]

    def _add_company(self, batch: _Batch) -> None:
        """Add a token that nobody reads, in a sequence of its own.

        llama.cpp computes a lone token by other kernels, which round differently: on F16 weights
        probabilities moved by up to 0.004, while slices of 2 to 64 tokens all gave the same. What a
        request is told must not depend on whether there is another one.
        """
        fork = self._first_fork + len(batch.forks)
        batch.forks.append(fork)
        batch.add(batch.ids[:1], 0, (fork,))

    def _plan(self, live: _Live, batch: _Batch, left: int) -> None:
        """Add what a request needs next, as far as ``left`` tokens go."""
        prefix = live.prefix
        if prefix is not None and not live.forked:
            if not self._has_decoded(prefix, live, batch, left):
                return
            self._copy(prefix.sequence, live.sequence)
            live.done = len(prefix.ids)
        live.forked = True
        prompt = live.choice.prompt
        if live.done == len(prompt):
            self._plan_options(live, batch, left)
        elif left > 0 and batch.output_count < SEQUENCES:
            ids = prompt[live.done : live.done + left]
            is_last = live.done + len(ids) == len(prompt)
            output = (live, ROOT) if is_last else None
            batch.add(ids.tolist(), live.done, (live.sequence,), output)
            live.done += len(ids)
            live.decoded += len(ids)

    def _has_decoded(self, prefix: Prefix, live: _Live, batch: _Batch, left: int) -> bool:
        """Whether a prefix is there; if not, add what it needs next."""
        if prefix.done == len(prefix.ids):
            return True
        if prefix.parent is not None and not prefix.done:
            if not self._has_decoded(prefix.parent, live, batch, left):
                return False
            self._copy(prefix.parent.sequence, prefix.sequence)
            prefix.done = len(prefix.parent.ids)
        # Whoever comes first decodes it; the others wait: it is there after the step.
        if left > 0 and all(prefix is not other for other, _ in batch.prefixes):
            ids = prefix.ids[prefix.done : prefix.done + left]
            batch.add(ids.tolist(), prefix.done, (prefix.sequence,))
            batch.prefixes.append((prefix, len(ids)))
            live.decoded += len(ids)
            live.missed += len(ids) if len(prefix.ids) == live.choice.shared else 0
        return False

    def _plan_options(self, live: _Live, batch: _Batch, left: int) -> None:
        """Add the next options: a fork for each node that ends one, nodes that they share once."""
        trie = live.trie
        forks: dict[int, list[int]] = {}
        outputs = batch.output_count
        taken = 0
        for leaf in live.pending:
            path = trie.path(leaf)
            new = [node for node in path if node not in forks]
            outputs += sum(live.asks(node) for node in new)
            fork = self._first_fork + len(batch.forks)
            if fork == SEQUENCES or outputs > SEQUENCES or len(forks) + len(new) > left:
                break
            batch.forks.append(fork)
            self._copy(live.sequence, fork)
            for node in path:
                forks.setdefault(node, []).append(fork)
            taken += 1
        del live.pending[:taken]
        start = len(live.choice.prompt) - 1
        for node, sequences in forks.items():
            output = (live, node) if live.asks(node) else None
            position = start + trie.nodes[node].depth
            batch.add([trie.nodes[node].token], position, tuple(sequences), output)
        live.decoded += len(forks)

    def _decode(self, batch: _Batch, threads: int) -> int:
        count = len(batch.ids)
        ids = np.array(batch.ids, np.int32)
        positions = np.array(batch.positions, np.int32)
        counts = np.array([len(each) for each in batch.sequences], np.int32)
        sequences = np.array([one for each in batch.sequences for one in each], np.int32)
        starts = np.cumsum(counts) - counts
        addresses = (sequences.ctypes.data + sequences.itemsize * starts).astype(np.uintp)
        outputs = np.array([each is not None for each in batch.outputs], np.int8)
        lib = self._lib
        made = lib.llama_batch(
            n_tokens=count,
            token=_pointer(ids, lib.llama_token),
            pos=_pointer(positions, lib.llama_pos),
            n_seq_id=_pointer(counts, ctypes.c_int32),
            seq_id=_pointer(addresses, ctypes.POINTER(lib.llama_seq_id)),
            logits=_pointer(outputs, ctypes.c_int8),
        )
        if threads != self._threads:
            lib.llama_set_n_threads(self._context, threads, threads)
            self._threads = threads
        return int(lib.llama_decode(self._context, made))

    def _read(self, batch: _Batch) -> None:
        """Take from the logits what the options need of them."""
        for index, output in enumerate(batch.outputs):
            if output is None:
                continue
            live, node = output
            pointer = self._lib.llama_get_logits_ith(self._context, index)
            logits_v = np.ctypeslib.as_array(pointer, (self._size,))
            live.log_shares[node] = _log_shares(live.trie, node, logits_v)
            if node == ROOT:
                live.pending = live.trie.deepest(_worth_asking(live))

    def _finish(self, live: _Live) -> Chosen:
        self.stop(live.number)
        normalize = live.choice.normalize_length
        scores = combine(live.trie, live.log_shares, normalize_length=normalize)
        if not np.isfinite(scores.probabilities).all():
            return Chosen(live.number, error="the model's logits are not finite")
        return Chosen(
            live.number,
            scores.probabilities,
            pruned=scores.pruned,
            cached_tokens=live.choice.shared - live.missed,
            decoded_tokens=live.decoded,
        )

    def _forget_all(self) -> list[int]:
        """Start afresh, as after a failed batch nobody knows what the context holds.

        Returns the numbers of the requests that were live.
        """
        numbers = list(self._live)
        for number in numbers:
            self.stop(number)
        self._prefixes.clear()
        self._lib.llama_memory_clear(self._memory, True)
        return numbers

    def _copy(self, source: int, target: int) -> None:
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def _forget(self, sequence: int) -> None:
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        """Free the context."""
        self._lib.llama_free(self._context)


def option_cells(options: Sequence[IntArray]) -> int:
    """Most cells that the options of a request take at a time."""
    return min(BATCH_TOKENS, sum(map(len, options)) + len(options))


def _log_shares(trie: LabelTrie, node: int, logits_v: FloatArray) -> dict[int, float]:
    """Log-probability of each child of a node; NaN where the logits are not finite."""
    children = trie.nodes[node].children
    parents_n = np.zeros(1 + len(children), np.int32)
    tokens_n = np.array([-1, *children], np.int32)
    rows_n = np.full(1 + len(children), -1, np.int32)
    parents_n[0], rows_n[0] = -1, 0
    try:
        logs_n = score_trie(logits_v[None], parents_n, tokens_n, rows_n, trie.scoring)
    except ValueError:
        return dict.fromkeys(children.values(), math.nan)
    return dict(zip(children.values(), logs_n[1:].tolist(), strict=True))


def _worth_asking(live: _Live) -> set[int]:
    """The nodes below the root whose logits are needed, without those of hopeless options."""
    trie = live.trie
    if trie.scoring == "full" or not live.choice.is_pruned:
        return trie.needed
    shares = live.log_shares[ROOT]
    least = np.log(PRUNED_BELOW)
    return {node for node in trie.needed if node == ROOT or shares[trie.path(node)[0]] >= least}


def _pointer(array: np.ndarray[Any, Any], kind: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(kind))
