"""The main job, through a real server process with both real models."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from servers import ENCODER, GENERATOR, TASK, Server

from sprat import AsyncClient, Client, Label, LabelSet, Message, Runtime, Sampling
from sprat.errors import InputTooLong, InvalidInput, NotFound, TaskNotSupported
from sprat.store import Store
from sprat.values import PrefixUse


def test_classify_answers_held_out_tickets(client: Client, tickets: tuple[Path, Path]) -> None:
    rows = [json.loads(line) for line in tickets[1].read_text("utf-8").splitlines()]
    result = client.classify(TASK, [row["text"] for row in rows])
    assert result.calibrated
    right = 0
    for item, row in zip(result.items, rows, strict=True):
        assert item is not None
        # So few rows vouch for no more than a ceiling.
        assert item.confidence is not None
        assert 0 < item.confidence <= item.scores[0].score
        assert sum(s.score for s in item.scores) == pytest.approx(1, abs=1e-4)
        assert [s.score for s in item.scores] == sorted(
            (s.score for s in item.scores), reverse=True
        )
        assert item.input_tokens > 2
        right += item.label == row["label"]
    # The vectors mean something: far above the 1/6 of guessing.
    assert right / len(rows) > 0.6
    timings = result.timings
    assert 0 < timings.infer_ns <= timings.total_ns
    assert timings.tokenize_ns > 0


def test_classify_limits_scores_to_top_k(client: Client) -> None:
    (item,) = client.classify(TASK, ["I was charged twice"], top_k=2).items
    assert item is not None
    assert len(item.scores) == 2


COLOURS = LabelSet(
    GENERATOR,
    (Label("red", "blood, roses, ripe tomatoes"), Label("green", "grass"), Label("red wine")),
    instructions="Which of these does the message name?",
)


def test_choose_gives_every_label_a_probability(client: Client) -> None:
    texts = ["The grass is green.", "A rose is red.", "The grass is green."]
    result = client.choose(COLOURS, texts)
    assert not result.calibrated
    assert (result.model, result.task_version) == (GENERATOR, "")
    names = {label.name for label in COLOURS.labels}
    for item in result.items:
        assert item is not None
        assert item.confidence is None
        assert {score.label for score in item.scores} == names
        assert sum(score.score for score in item.scores) == pytest.approx(1, abs=1e-4)
        assert item.label == item.scores[0].label
        assert item.cached_tokens < item.input_tokens
    first, second, again = (item.scores for item in result.items if item)
    # Where its rows stand in a batch moves a choice on Q8_0, by how much depends on the CPU.
    assert {s.label: s.score for s in first} == pytest.approx(
        {s.label: s.score for s in again}, abs=0.15
    )
    assert first != second


def test_choose_reads_what_texts_share_once(client: Client) -> None:
    client.choose(COLOURS, ["Warm up."])
    (item,) = client.choose(COLOURS, ["The sky."], top_k=1).items
    assert item is not None
    assert item.cached_tokens > item.input_tokens // 2
    assert len(item.scores) == 1


def test_choose_answers_many_clients_side_by_side(server: Server) -> None:
    """Two tasks at once, beside answers that are generated, on one model."""
    other = LabelSet(GENERATOR, (Label("yes"), Label("no")), scoring="full")

    async def run() -> None:
        async with AsyncClient(server.address) as client:

            async def one(number: int) -> None:
                labels = (COLOURS, other)[number % 2]
                result = await client.choose(labels, [f"Tomato number {number}", "Grass"])
                assert all(item is not None for item in result.items)

            async def story() -> None:
                chunks = client.generate(GENERATOR, "Once", Sampling(max_tokens=8))
                assert [chunk async for chunk in chunks]

            await asyncio.gather(*map(one, range(8)), story())

    asyncio.run(run())


def test_choose_refuses_bad_labels_and_long_texts(client: Client) -> None:
    for labels, field in (
        (LabelSet(GENERATOR, (Label("a"),)), "labels"),
        (LabelSet(GENERATOR, (Label("a"), Label("a"))), "labels[1]"),
        (LabelSet(GENERATOR, (Label("a"), Label(""))), "labels[1]"),
    ):
        with pytest.raises(InvalidInput) as caught:
            client.choose(labels, ["x"])
        assert caught.value.field == field
    with pytest.raises(InputTooLong) as long_label:
        client.choose(LabelSet(GENERATOR, (Label("a"), Label("many words " * 40))), ["x"])
    assert (long_label.value.field, long_label.value.limit) == ("labels[1]", 32)
    with pytest.raises(InputTooLong) as long_text:
        client.choose(COLOURS, ["x", "word " * 9000])
    assert long_text.value.field == "texts[1]"
    partial = client.choose(COLOURS, ["x", "word " * 9000], partial=True)
    assert [item is None for item in partial.items] == [False, True]
    with pytest.raises(TaskNotSupported):
        client.choose(LabelSet(ENCODER, COLOURS.labels), ["x"])


def test_embed_ranks_paraphrases_above_others(client: Client) -> None:
    texts = ["How do I get my money back?", "I would like a refund.", "The sun is a star."]
    result = client.embed(ENCODER, texts)
    assert result.vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-5)
    similarity = result.vectors @ result.vectors.T
    assert similarity[0, 1] > similarity[0, 2] + 0.2


def test_embed_keeps_order_in_large_calls(client: Client) -> None:
    texts = [f"ticket number {i}: {'please help ' * (i % 17)}" for i in range(200)]
    together = client.embed(ENCODER, texts).vectors
    for index in (0, 16, 99, 199):
        alone = client.embed(ENCODER, [texts[index]]).vectors[0]
        assert alone @ together[index] > 0.99


def test_generate_streams_whole_code_points(client: Client) -> None:
    chunks = list(
        client.generate(GENERATOR, [Message("user", "Name three fruits.")], Sampling(max_tokens=24))
    )
    assert len(chunks) > 3
    last = chunks[-1]
    assert last.finish_reason in ("stop", "length")
    assert 0 < last.output_tokens <= 24
    assert last.prompt_tokens > 5
    assert last.timings.infer_ns > 0
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])
    assert "\ufffd" not in "".join(chunk.text for chunk in chunks)


def test_generate_ends_before_a_stop_string(client: Client) -> None:
    prompt = "One, two, three, four, five,"
    free = "".join(c.text for c in client.generate(GENERATOR, prompt, Sampling(max_tokens=12)))
    stop = free.strip().split(",")[0]
    assert stop
    cut = list(client.generate(GENERATOR, prompt, Sampling(max_tokens=12, stop=(stop,))))
    text = "".join(chunk.text for chunk in cut)
    assert text == free[: free.index(stop)]
    assert cut[-1].finish_reason == "stop"


def test_generate_closed_early_leaves_the_server_usable(client: Client) -> None:
    stream = client.generate(GENERATOR, "Once upon a time", Sampling(max_tokens=500))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert list(client.generate(GENERATOR, "Once", Sampling(max_tokens=2)))


def test_generate_answers_eight_streams_side_by_side(server: Server) -> None:
    sampling = Sampling(max_tokens=16)

    async def run() -> list[str]:
        async with AsyncClient(server.address) as client:

            async def one(number: int) -> str:
                stream = client.generate(GENERATOR, f"The number {number} is", sampling)
                return "".join([chunk.text async for chunk in stream])

            return await asyncio.gather(*(one(i) for i in range(8)))

    assert all(asyncio.run(run()))


def test_tokenize_shows_special_tokens(client: Client) -> None:
    result = client.tokenize(ENCODER, ["hello [SEP] world"])
    pieces = result.items[0].tokens
    assert pieces[0] == "[CLS]"
    assert pieces[-1] == "[SEP]"
    # What a user writes is never a special token.
    assert pieces[1:-1].count("[SEP]") == 0
    assert client.tokenize(GENERATOR, ["hello world"]).items[0].ids


def test_list_tasks_and_models(client: Client) -> None:
    tasks = {task.name: task for task in client.list_tasks()}
    assert {name: task.kind for name, task in tasks.items()} == {
        TASK: "classify",
        "colours": "classify",
        "digits": "transform",
        "orders": "extract",
        "teams": "route",
        "triage": "decide",
    }
    task = tasks[TASK]
    assert (task.name, task.kind, len(task.labels)) == (TASK, "classify", 6)
    models = {m.name: m for m in client.list_models()}
    assert models[ENCODER].dimension == 384
    assert models[GENERATOR].quantization == "q8_0"
    assert task.models == ((ENCODER, models[ENCODER].version),)


def test_list_models_says_what_kept_prefixes_save(client: Client) -> None:
    def use() -> PrefixUse:
        (model,) = (m for m in client.list_models() if m.name == GENERATOR)
        assert model.prefix_use is not None
        return model.prefix_use

    labels = LabelSet(GENERATOR, (Label("tea"), Label("coffee")), "Which drink is it about?")
    client.choose(labels, ["warm the pot first"])
    before = use()
    (item,) = client.choose(labels, ["grind the beans"]).items
    assert item is not None
    after = use()
    assert item.cached_tokens > 0
    assert after.requests == before.requests + 1
    assert after.hits == before.hits + 1
    assert after.saved_tokens == before.saved_tokens + item.cached_tokens


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([""], "INVALID_INPUT"),
        ([" \n\t "], "INVALID_INPUT"),
        ([], "INVALID_INPUT"),
        (["x"] * 1025, "INVALID_INPUT"),
        (["word " * 200_000], "INPUT_TOO_LONG"),
    ],
)
def test_classify_refuses_bad_input(client: Client, texts: list[str], reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.classify(TASK, texts)
    assert caught.value.reason == reason
    assert caught.value.field.startswith("texts")
    assert "word" not in caught.value.message


def test_classify_names_tokens_and_limit_of_a_long_text(client: Client) -> None:
    with pytest.raises(InputTooLong) as caught:
        client.classify(TASK, ["fine", "word " * 1000])
    assert caught.value.field == "texts[1]"
    assert caught.value.tokens == 1002
    assert caught.value.limit == 256


def test_classify_truncates_when_asked(client: Client) -> None:
    (item,) = client.classify(TASK, ["word " * 1000], truncation="truncate").items
    assert item is not None
    assert item.input_tokens == 256
    assert item.dropped_tokens == 1002 - 256


def test_classify_answers_the_good_ones_of_a_partial_call(client: Client) -> None:
    result = client.classify(TASK, ["refund please", "", "where is it"], partial=True)
    assert [item is None for item in result.items] == [False, True, False]
    assert [(e.index, e.reason) for e in result.errors] == [(1, "INVALID_INPUT")]


def test_classify_takes_nul_and_one_megabyte_words(client: Client) -> None:
    result = client.classify(TASK, ["re\x00fund", "x" * 1_000_000], partial=True)
    assert result.items[0] is not None
    # A word over 100 characters is one unknown token, however long it is.
    assert result.items[1] is not None
    assert result.items[1].input_tokens == 3


def test_lone_surrogates_are_named_by_position(client: Client) -> None:
    with pytest.raises(InvalidInput, match=r"texts\[1\].*character 2"):
        client.embed(ENCODER, ["good", "ab\ud800"])


def test_unknown_names_are_answered_with_known_ones(client: Client) -> None:
    with pytest.raises(NotFound, match=TASK):
        client.classify("nothing", ["x"])
    with pytest.raises(NotFound, match=ENCODER):
        client.embed("nothing", ["x"])


def test_wrong_kind_of_model_is_refused(client: Client) -> None:
    with pytest.raises(TaskNotSupported):
        client.embed(GENERATOR, ["x"])
    with pytest.raises(TaskNotSupported):
        list(client.generate(ENCODER, "x"))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=0),
        Sampling(temperature=11),
        Sampling(top_p=0),
        Sampling(stop=("",)),
        Sampling(repeat_penalty=0),
    ],
)
def test_generate_refuses_sampling_out_of_range(client: Client, sampling: Sampling) -> None:
    with pytest.raises(InvalidInput, match="sampling"):
        list(client.generate(GENERATOR, "x", sampling))


def test_generate_refuses_a_prompt_longer_than_the_context(client: Client) -> None:
    with pytest.raises(InputTooLong):
        list(client.generate(GENERATOR, "word " * 20_000))


def test_server_and_runtime_give_the_same_answers(
    client: Client, store: Store, bundle: Path
) -> None:
    texts = ["I want my money back", "the app crashes on start", "parcel lost in the mail"]
    served = client.classify(TASK, texts)
    with Runtime(tasks=[str(bundle)], store=store) as runtime:
        local = runtime.classify(TASK, texts)
    assert [i.label for i in served.items if i] == [i.label for i in local.items if i]
    assert served.task_version == local.task_version
    for a, b in zip(served.items, local.items, strict=True):
        assert a is not None
        assert b is not None
        assert a.confidence == pytest.approx(b.confidence, abs=0.02)


def test_clients_may_be_shared_between_threads(client: Client) -> None:
    answers: list[int] = []

    def work() -> None:
        for _ in range(5):
            answers.append(len(client.embed(ENCODER, ["a", "b"]).vectors))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [2] * 20
