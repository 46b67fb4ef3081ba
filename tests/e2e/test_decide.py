"""Decide and Route through a real server process, on the real model."""

from __future__ import annotations

import asyncio

import pytest
from servers import GENERATOR, Server

from sprat import AsyncClient, Client
from sprat.errors import InputTooLong, InvalidInput
from sprat.values import Destination, Label, Question, QuestionSet, RouteSet

QUESTIONS = QuestionSet(
    GENERATOR,
    (
        Question("urgent", "Is it urgent?", "yes_no"),
        Question("topic", "What is it about?", "choice", (Label("card"), Label("exchange rate"))),
        Question("mood", "How angry?", "score", (Label("calm"), Label("cross"), Label("furious"))),
    ),
    instructions="Customers of a bank write this.",
)


def test_decide_gives_every_option_a_probability(client: Client) -> None:
    texts = ["My card was stolen!", "How much is a pound in euros?"]
    client.decide(QUESTIONS, ["Warm up."])
    result = client.decide(QUESTIONS, texts)
    assert not result.calibrated
    for item in result.items:
        assert item is not None
        for answer, question in zip(item.answers, QUESTIONS.questions, strict=True):
            assert answer.question == question.name
            assert sum(s.score for s in answer.scores) == pytest.approx(1, abs=1e-4)
            assert answer.option == max(answer.scores, key=lambda s: s.score).label
        level = item.answers[2].expected_level
        assert level is not None
        assert 0 <= level <= 2
        # The questions were read before, the text and the cues were not.
        assert item.input_tokens // 2 < item.cached_tokens < item.input_tokens


def test_decide_corrects_the_prior(client: Client) -> None:
    corrected = QuestionSet(GENERATOR, QUESTIONS.questions, correct_prior=True)
    (item,) = client.decide(corrected, ["How much is a pound in euros?"]).items
    assert item is not None
    assert all(answer.pruned == 0 for answer in item.answers)
    assert item.answers[1].option == "exchange rate"


def test_decide_answers_many_clients_side_by_side(server: Server) -> None:
    async def run() -> None:
        async with AsyncClient(server.address) as client:

            async def one(number: int) -> None:
                if number % 4 == 3:
                    with pytest.raises(InvalidInput):
                        await client.decide(QUESTIONS, [""])
                    return
                result = await client.decide(QUESTIONS, [f"Card number {number}", "Hello"])
                assert [len(item.answers) for item in result.items if item] == [3, 3]

            await asyncio.gather(*map(one, range(8)))

    asyncio.run(run())


def test_decide_refuses_long_texts_alone(client: Client) -> None:
    with pytest.raises(InputTooLong) as caught:
        client.decide(QUESTIONS, ["x", "word " * 9000])
    assert caught.value.field == "texts[1]"
    partial = client.decide(QUESTIONS, ["x", "word " * 9000], partial=True)
    assert [item is None for item in partial.items] == [False, True]


def test_route_sends_texts_to_targets(client: Client) -> None:
    routes = RouteSet(
        GENERATOR,
        (Destination("cards", "lost and stolen cards", "queue-1"), Destination("rates")),
    )
    (item,) = client.route(routes, ["My card was stolen."]).items
    assert item is not None
    assert item.target == {"cards": "queue-1", "rates": "rates"}[item.classification.label]
    assert sum(s.score for s in item.classification.scores) == pytest.approx(1, abs=1e-4)
