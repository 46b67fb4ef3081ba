"""Extract by a bundle: spans to values and fields, what was requested, thresholds, bad input."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import MAX_TOKENS, Encoder, encoder_model, ids, manifest

from sprat.budget import ComputePermits
from sprat.bundle import Bundle
from sprat.bundle_manifest import BundleManifest
from sprat.errors import ConfigError, InputTooLong, InvalidInput
from sprat.model import EncoderModel
from sprat.scheduler import ComputePool, Mailbox
from sprat.tagger import SHAPES, Indicators, Tagger, tags_of
from sprat.tasks.extract_task import ExtractTask
from sprat.tasks.tag_tier import INLINE_CHARACTERS, TagTier
from sprat.tasks.tier import Part

FIELDS = ("first", "sec/ond")
TAGS = tags_of(FIELDS)
SAME = ((0.0, 0.0), (1.0, 1.0))
"""A curve that leaves chances as they are."""
FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}


def letters(many: tuple[str, ...] = ()) -> Tagger:
    """``a`` is a `first`; ``b ... c`` is a `sec/ond`, as is ``d`` where that was requested."""
    vocabulary = np.array(sorted(ids("a b c d")[1:-1]), np.int32)
    features = Indicators(vocabulary, FIELDS)
    indicators = np.zeros((features.count, len(TAGS)), np.float32)
    own = len(vocabulary) + SHAPES + 2
    for row, tag in enumerate(("S-first", "B-sec/ond", "E-sec/ond", "S-sec/ond")):
        indicators[own + row, TAGS.index(tag)] = 20 if tag != "S-sec/ond" else 6
    requested = 3 * own + 4 + FIELDS.index("sec/ond") * (1 + SHAPES)
    indicators[requested, TAGS.index("S-sec/ond")] = 6
    size = len(TAGS)
    transitions = np.zeros((size, size), np.float32)
    transitions[TAGS.index("E-sec/ond"), TAGS.index("B-sec/ond")] = -9
    return Tagger(
        FIELDS,
        frozenset(many),
        states=np.zeros((1, 4, size), np.float32),
        bias=np.eye(1, size, dtype=np.float32)[0] * 9,
        vocabulary=vocabulary,
        indicators=indicators,
        transitions=transitions,
        start=np.zeros(size, np.float32),
        end=np.zeros(size, np.float32),
        temperature=2.0,
    )


def bundle(
    *, many: tuple[str, ...] = (), accept_at: float = 0.0, calibrated: bool = True
) -> Bundle:
    base = manifest("encoder")
    made = BundleManifest.model_validate(
        {
            "name": "fields",
            "kind": "extract",
            "labels": FIELDS,
            "extract": {"many": many},
            "tiers": [
                {
                    "name": "head",
                    "base": {"name": base.name, "digest": base.digest},
                    "weights": "tagger.safetensors",
                    "calibration": {"temperature": 2.0, "isotonic": SAME} if calibrated else None,
                    "accept_at": accept_at,
                    "evaluation": {"n": 9, "metrics": {"micro_f1": FIGURE}},
                }
            ],
            "train_rows": 30,
            "created": "2025-01-01T00:00:00Z",
            "made_by": "tests",
            "files": [{"path": "tagger.safetensors", "size": 1, "sha256": "b" * 64}],
        }
    )
    return Bundle(made, taggers=(letters(many),))


def tag_task(
    made: Bundle, model: EncoderModel, pool: ComputePool, *, accept_at: float | None = None
) -> ExtractTask:
    """The task of a bundle of one tier."""
    (tier,) = made.manifest.tiers
    least = tier.accept_at if accept_at is None else accept_at
    return ExtractTask("t", made.manifest, [Part(0, TagTier.of(made, 0, model, pool), least)])


@pytest.fixture
def pool(permits: ComputePermits) -> Iterator[ComputePool]:
    made = ComputePool(permits)
    yield made
    made.close()


@pytest.fixture
async def model(permits: ComputePermits, pool: ComputePool) -> AsyncIterator[EncoderModel]:
    made = encoder_model(Encoder(), permits, pool)
    yield made
    await asyncio.to_thread(made.close)


async def test_extract_task_gives_values_and_where_they_stand(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(), model, pool)
    result = await task.run(["x b \U0001f600 c a", "x", "a"], mailbox=mailbox)
    first, second, third = result.items
    assert first is not None
    assert first.value == {"first": "a", "sec/ond": "b \U0001f600 c"}
    assert first.json == '{"first":"a","sec/ond":"b \U0001f600 c"}'
    assert [(f.path, f.start, f.end, f.grounded) for f in first.fields] == [
        ("/first", 8, 9, True),
        ("/sec~1ond", 2, 7, True),
    ]
    for field in first.fields:
        assert field.confidence is not None
        assert 0.9 < field.confidence < field.score <= 1
    assert (first.complete, first.abstained, first.chunks) == (True, False, 1)
    assert first.input_tokens == 7
    assert second is not None
    assert (second.value, second.json, second.fields) == ({}, "{}", ())
    assert third is not None
    assert third.value == {"first": "a"}
    assert (result.model, result.task_version) == (model.info.name, task.info.version)
    assert min(result.timings.queue_ns, result.timings.infer_ns, result.timings.total_ns) > 0
    assert (task.info.kind, task.info.labels) == ("extract", FIELDS)


async def test_extract_task_lists_fields_that_a_text_may_have_several_of(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    many = tag_task(bundle(many=("first",)), model, pool)
    for text, values in (("a x a", ["a", "a"]), ("x a", ["a"])):
        (item,) = (await many.run([text], mailbox=mailbox)).items
        assert item is not None
        assert item.value == {"first": values}
        paths = [f.path for f in item.fields]
        assert paths == [f"/first/{at}" for at in range(len(values))]
    (item,) = (await tag_task(bundle(), model, pool).run(["a x a"], mailbox=mailbox)).items
    assert item is not None
    assert item.value == {"first": "a"}


async def test_extract_task_listens_to_what_was_requested(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(), model, pool)
    for requested, value in (((), {}), (("first",), {}), (("sec/ond",), {"sec/ond": "d"})):
        (item,) = (await task.run(["d"], requested=requested, mailbox=mailbox)).items
        assert item is not None
        assert item.value == value
    with pytest.raises(InvalidInput, match=r"requested\[0\]: no field .* has first, sec/ond"):
        await task.run(["d"], requested=["third"], mailbox=mailbox)


async def test_extract_task_abstains_below_the_threshold(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(accept_at=0.97), model, pool)
    result = await task.run(["a", "d", "a d"], requested=["sec/ond"], mailbox=mailbox)
    sure, unsure, both = result.items
    assert sure is not None
    assert not sure.abstained
    for item, fields in ((unsure, 1), (both, 2)):
        assert item is not None
        assert (item.abstained, item.value, item.json) == (True, None, "")
        assert len(item.fields) == fields
    own = tag_task(bundle(accept_at=0.97), model, pool, accept_at=0.1)
    assert own.info.accept_at == 0.1
    (item,) = (await own.run(["d"], requested=["sec/ond"], mailbox=mailbox)).items
    assert item is not None
    assert item.value == {"sec/ond": "d"}


async def test_extract_task_has_no_confidence_without_calibration(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(calibrated=False), model, pool)
    (item,) = (await task.run(["a"], mailbox=mailbox)).items
    assert item is not None
    assert item.fields[0].confidence is None
    assert item.fields[0].score > 0.9
    with pytest.raises(ConfigError, match=r"accept_at: 0\.5 needs a confidence"):
        tag_task(bundle(calibrated=False), model, pool, accept_at=0.5)


@pytest.mark.parametrize("at", range(4, 30, 3))
async def test_extract_task_finds_spans_over_the_edges_of_parts(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox, at: int
) -> None:
    text = "x " * at + "b x x c " + "x " * 30 + "a"
    task = tag_task(bundle(), model, pool)
    with pytest.raises(InputTooLong, match="long_input"):
        await task.run([text], mailbox=mailbox)
    (item,) = (await task.run([text], long_input="chunk", mailbox=mailbox)).items
    assert item is not None
    assert item.chunks > 2
    assert item.value == {"first": "a", "sec/ond": "b x x c"}
    assert [(f.start, f.end) for f in item.fields] == [
        (len(text) - 1, len(text)),
        (2 * at, 2 * at + 7),
    ]


async def test_extract_task_leaves_the_event_loop_free_while_it_reads_long_texts(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    tagged = Tagger.read

    def watched(self: Tagger, *arguments: Any) -> Any:
        threads.append(threading.get_ident())
        return tagged(self, *arguments)

    monkeypatch.setattr(Tagger, "read", watched)
    task = tag_task(bundle(), model, pool)
    text = "x a"
    short = await task.run([text], mailbox=mailbox)
    many = await task.run([text] * (INLINE_CHARACTERS // len(text) + 1), mailbox=mailbox)
    assert threads[0] == threading.get_ident() != threads[1]
    assert set(map(repr, (item and item.value for item in many.items))) == {
        repr(short.items[0] and short.items[0].value)
    }


async def test_extract_task_refuses_another_policy(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    with pytest.raises(InvalidInput, match="long_input: expected refuse or chunk"):
        await tag_task(bundle(), model, pool).run(
            ["a"],
            long_input="cut",  # type: ignore[arg-type]
            mailbox=mailbox,
        )


async def test_extract_task_answers_good_texts_beside_bad_ones(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(), model, pool)
    texts = ["", "a", "a " * MAX_TOKENS]
    with pytest.raises(InvalidInput, match=r"texts\[0\]: is empty"):
        await task.run(texts, mailbox=mailbox)
    result = await task.run(texts, partial=True, mailbox=mailbox)
    assert [item is not None for item in result.items] == [False, True, False]
    assert [error.index for error in result.errors] == [0, 2]


def test_tag_version_follows_what_answers_depend_on() -> None:
    made = bundle().manifest
    assert bundle(many=("first",)).manifest.version != made.version
    other = made.model_copy(
        update={"tiers": (made.tiers[0].model_copy(update={"accept_at": 0.5}),)}
    )
    assert other.version != made.version
    assert replace(bundle()).manifest.version == made.version


async def test_extract_task_confidence_is_that_nothing_is_wrong_or_missing(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    task = tag_task(bundle(), model, pool)
    result = await task.run(["a", "d", "d d", "x"], requested=["sec/ond"], mailbox=mailbox)
    assert result.calibrated
    sure, unsure, doubly, nothing = (item and item.confidence for item in result.items)
    assert sure is not None
    assert unsure is not None
    assert doubly is not None
    assert nothing is not None
    assert 0 < doubly < unsure < sure <= 1
    assert nothing > 0.9, "that nothing is there is an answer, too"
    twice = result.items[2]
    assert twice is not None
    assert doubly < min(field.score for field in twice.fields)


async def test_extract_task_says_what_a_text_took(
    model: EncoderModel, pool: ComputePool, mailbox: Mailbox
) -> None:
    (item,) = (await tag_task(bundle(), model, pool).run(["a x"], mailbox=mailbox)).items
    assert item is not None
    assert item.cpu_ms is not None
    assert item.cpu_ms > 0
