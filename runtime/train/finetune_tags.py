"""Fine-tune all layers of an encoder for the spans of a task (torch), with a simple layer on top.

The layer gives every token a score for every tag of BIOES, from its state and from what the text
was asked for; training makes the right tags probable, token by token. The layer is thrown away
then: a tagger (`sprat.train.fit_tagger`) is fitted on the states of the encoder that serves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sprat.progress import Progress
from sprat.tagger import tags_of
from sprat.text.parts import TokenParts
from sprat.tokenizer import Tokenizer
from sprat.train.calibrate import fit_temperature, nll
from sprat.train.encoder_body import EncoderBody, parts
from sprat.train.finetune import HEAD_RATE, PASS_TOKENS, training_digest
from sprat.train.fit_tagger import align
from sprat.train.loop import LoopSettings, LoopState, train
from sprat.train.spans import SpanDataset
from sprat.train.split import same_texts
from sprat.values import FloatArray, IntArray

if TYPE_CHECKING:
    import torch

HELD_OUT_OF = 10
"""One of so many texts says when to stop, and what a tagger is chosen and calibrated on."""

EPOCHS = 15
"""Most passes, where nothing is said: on restaurant8k the loss still falls in the eighth."""

UNCOUNTED = -1
"""The tag of tokens that are not trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class TaggedPart:
    """A text, or a part of one that is too long, as the encoder reads it.

    Attributes
    ----------
    ids : int32[T]
        Special tokens included.
    tags : int32[T]
        As indices into `sprat.tagger.tags_of`; `UNCOUNTED` of special tokens, and of those whose
        state another part gives.
    asked : int32[A]
        What was requested, as indices into the fields; their number where nothing is known.
    """

    ids: IntArray
    tags: IntArray
    asked: IntArray


TaggedText = list[TaggedPart]


def tagged_texts(
    data: SpanDataset, tokenizer: Tokenizer, fields: Sequence[str], *, max_tokens: int
) -> list[TaggedText]:
    """The rows as an encoder reads them, with the tag of each token.

    Parameters
    ----------
    fields : sequence of str
        Those of all spans and requests of the rows.
    max_tokens : int
        Longest input of the encoder, special tokens included; longer texts come in several parts.
    """
    made = []
    encoded = tokenizer.encode_spans(data.texts)
    for text, spans, requested, (ids, places) in zip(
        data.texts, data.spans, data.requested, encoded, strict=True
    ):
        tags, _ = align(text, spans, places[1:-1], fields)
        asked = np.array([fields.index(field) for field in requested] or [len(fields)], np.int32)
        read = TokenParts.of(text, ids, places, max_tokens)
        found = []
        for row, (start, _), (low, high) in zip(read.rows, read.parts, read.kept, strict=True):
            own = np.full(len(row), UNCOUNTED, np.int32)
            own[1 + low - start : 1 + high - start] = tags[low:high]
            found.append(TaggedPart(row, own, asked))
        made.append(found)
    return made


def validation_texts(data: SpanDataset, texts: Sequence[TaggedText], *, seed: int) -> IntArray:
    """Rows to leave out of training: about a tenth of the texts with each field, at least one text.

    Rows with the same text stay together. Rows without tokens are not among them.

    Parameters
    ----------
    data, texts
        The rows, and how they are read.
    seed : int
        At least 0.

    Returns
    -------
    int32[M]
        Ascending.
    """
    groups_n = same_texts(data.texts)
    counts = Counter(span.field for spans in data.spans for span in spans)
    # Texts are ordered by their rarest field: every tenth of them is a tenth of each field's.
    kinds: dict[int, tuple[float, str]] = {}
    for group, spans, text in zip(groups_n.tolist(), data.spans, texts, strict=True):
        if any((part.tags != UNCOUNTED).any() for part in text):
            kind = min(((counts[span.field], span.field) for span in spans), default=(math.inf, ""))
            kinds[group] = min(kind, kinds.get(group, kind))
    shuffled = np.random.default_rng([seed, 1]).permutation(list(kinds)).tolist()
    ordered = sorted(shuffled, key=lambda group: kinds[group])
    held = ordered[HELD_OUT_OF // 2 :: HELD_OUT_OF] or ordered[:1]
    return np.flatnonzero(np.isin(groups_n, held)).astype(np.int32)


def tune_for_tags(
    body: EncoderBody,
    texts: Sequence[TaggedText],
    validation: IntArray,
    settings: LoopSettings,
    *,
    fields: Sequence[str],
    base: str,
    checkpoint: Path,
    resume: bool,
    progress: Progress,
) -> LoopState:
    """Fine-tune an encoder so that the states of its tokens tell their tags.

    Parameters
    ----------
    body : EncoderBody
        Has the weights that were kept in the end.
    texts : sequence of TaggedText
    validation : int32[M]
        Rows that are not trained on.
    fields : sequence of str
        What there is to find.
    base : str
        Digest of the model that ``body`` was read from.
    checkpoint, resume, progress
        See `sprat.train.loop.train`, also for what is returned and raised.
    """
    trained = np.setdiff1d(np.arange(len(texts)), validation).tolist()
    task = _Tags(
        body,
        [texts[row] for row in trained],
        [texts[row] for row in validation.tolist()],
        fields=fields,
    )
    read = [part for text in texts for part in text]
    key = training_digest(
        [part.ids for part in read],
        [*(part.tags for part in read), *(part.asked for part in read), validation],
        settings,
        base,
    )
    state = train(task, settings, checkpoint=checkpoint, key=key, resume=resume, progress=progress)
    body.train(is_on=False)
    return state


class _Tags:
    """Scores of tags for every token; see the module."""

    def __init__(
        self,
        body: EncoderBody,
        trained: Sequence[TaggedText],
        held: Sequence[TaggedText],
        *,
        fields: Sequence[str],
    ) -> None:
        import torch

        tags = len(tags_of(fields))
        self._body = body
        self._trained, self._held = trained, held
        self._weight = torch.nn.Parameter(torch.zeros(body.dimension, tags))
        self._bias = torch.nn.Parameter(torch.zeros(tags))
        self._asked = torch.nn.Parameter(torch.zeros(len(fields) + 1, tags))
        head = {"head.weight": self._weight, "head.bias": self._bias, "head.asked": self._asked}
        self.parameters = {**body.parameters, **head}
        self.rates = dict.fromkeys(head, HEAD_RATE)
        self.count = len(trained)

    def losses(self, rows: Sequence[int]) -> Iterator[torch.Tensor]:
        import torch

        self._body.train(is_on=True)
        chosen = [part for row in rows for part in self._trained[row]]
        counted = sum(int((part.tags != UNCOUNTED).sum()) for part in chosen)
        for logits, targets in self._passes(chosen):
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            yield loss / max(1, counted)

    def judge(self) -> float:
        # At the best temperature: a tagger scales what it is given, so growing sure is no harm.
        logits, targets = self._held_logits()
        return nll(logits, targets, fit_temperature(logits, targets))

    def _held_logits(self) -> tuple[FloatArray, IntArray]:
        """Scores and tags of the validation rows' tokens: float32[M, K], int32[M]."""
        import torch

        self._body.train(is_on=False)
        with torch.no_grad():
            made = list(self._passes([part for text in self._held for part in text]))
        return (
            torch.cat([logits for logits, _ in made]).numpy(),
            torch.cat([targets for _, targets in made]).numpy().astype(np.int32),
        )

    def _passes(self, chosen: Sequence[TaggedPart]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Scores and tags of the tokens that count, by passes that fit into memory."""
        import torch

        lengths = [len(part.ids) for part in chosen]
        for places in parts(range(len(chosen)), lengths, most_tokens=PASS_TOKENS):
            part = [chosen[place] for place in places]
            states_bth, _ = self._body.states([each.ids for each in part])
            tags_bt = np.full(states_bth.shape[:2], UNCOUNTED, np.int64)
            for row, each in zip(tags_bt, part, strict=True):
                row[: len(each.tags)] = each.tags
            asked_bk = torch.stack([self._asked[each.asked.tolist()].sum(0) for each in part])
            targets = torch.from_numpy(tags_bt)
            counts = targets != UNCOUNTED
            logits_btk = states_bth @ self._weight + self._bias + asked_bk[:, None]
            yield logits_btk[counts], targets[counts]
