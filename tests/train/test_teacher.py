"""Teachers behind an endpoint: what they are asked, and what their answers are taken for."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import ChatServer, Fault, by_words, user_text
from servers import GENERATOR
from teachers import labeller, writer

from sprat import remote
from sprat.errors import EndpointError, InvalidInput, Retryable
from sprat.inprocess import Runtime
from sprat.store import Store
from sprat.train.teacher import LocalWriter, Opinion
from sprat.values import Label, Sampling

LABELS = ("card lost", "Refund", "other")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(by_words({"money": ("Refund", -0.1), "card": "card lost"})) as server:
        yield server


def test_labeller_sends_the_labels_and_the_text(chat: ChatServer) -> None:
    labels = [Label("card lost", "it is gone"), Label("other")]
    with labeller(chat, labels) as teacher:
        assert dict(teacher.label(["my card"]))[0].label == "card lost"
    (body,) = chat.bodies
    system, user = body["messages"]
    assert "- card lost: it is gone\n- other" in system["content"]
    assert user == {"role": "user", "content": "my card"}
    assert (body["temperature"], body["logprobs"]) == (0.0, True)


def test_labeller_answers_with_the_probability_of_the_answer(chat: ChatServer) -> None:
    with labeller(chat, LABELS) as teacher:
        opinions = dict(teacher.label(["my card", "my money", "nothing"]))
    assert opinions[0].label == "card lost"
    assert opinions[1] == Opinion("Refund", pytest.approx(math.exp(-0.1)))
    assert opinions[2] == Opinion("", 0.0)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("Refund", "Refund"),
        (" refund.\n", "Refund"),
        ('"Card  lost"', "card lost"),
        ("**other**", "other"),
        ("Refund or other", ""),
        ("", ""),
        ("The label is Refund", ""),
    ],
)
def test_labeller_takes_a_label_by_its_name_only(answer: str, label: str) -> None:
    with ChatServer(lambda body: answer) as chat, labeller(chat, LABELS) as teacher:
        assert dict(teacher.label(["x"]))[0].label == label


def test_labeller_does_not_guess_between_labels_that_differ_in_case() -> None:
    answers = by_words({"1": "A", "2": "a", "3": "a."})
    with ChatServer(answers) as chat, labeller(chat, ["A", "a"]) as teacher:
        opinions = dict(teacher.label(["1", "2", "3"]))
    assert [opinions[at].label for at in range(3)] == ["A", "a", ""]


def test_labeller_counts_votes() -> None:
    answers = itertools.cycle(["Refund", "refund", "other", "no idea", "Refund"])
    lock = threading.Lock()

    def answer(body: object) -> str:
        with lock:
            return next(answers)

    with ChatServer(answer) as chat, labeller(chat, LABELS, votes=5) as teacher:
        assert dict(teacher.label(["x"])) == {0: Opinion("Refund", 0.6)}
    assert [body["temperature"] for body in chat.bodies] == [1.0] * 5
    assert "logprobs" not in chat.bodies[0]


def test_labeller_says_what_to_do_without_probabilities(chat: ChatServer) -> None:
    chat.has_logprobs = False
    with labeller(chat, LABELS) as teacher, pytest.raises(EndpointError, match="--votes 5"):
        list(teacher.label(["my card"]))


def test_labeller_fails_one_text_alone(chat: ChatServer) -> None:
    chat.faults = [Fault(400)]
    with labeller(chat, LABELS, concurrency=1) as teacher:
        opinions = dict(teacher.label(["my card", "my card"]))
    assert sorted(opinion.label for opinion in opinions.values()) == ["", "card lost"]
    (failed,) = (opinion for opinion in opinions.values() if opinion.error)
    assert "status 400" in failed.error


def test_labeller_raises_where_no_text_is_accepted(chat: ChatServer) -> None:
    chat.faults = [Fault(400)] * 3
    with labeller(chat, LABELS) as teacher, pytest.raises(InvalidInput, match="status 400"):
        list(teacher.label(["a", "b", "c"]))


def test_labeller_yields_what_it_has_before_it_fails(chat: ChatServer) -> None:
    chat.faults = [Fault(), Fault(500), Fault(500)]
    done = []
    with labeller(chat, LABELS, concurrency=1, attempts=2) as teacher, pytest.raises(Retryable):
        for index, _ in teacher.label([f"my card {n}" for n in range(9)]):
            done.append(index)
    # Those behind it were never sent.
    assert len(done) == 1
    assert len(chat.bodies) == 3


def test_labeller_stops_asking_when_it_is_left(chat: ChatServer) -> None:
    with labeller(chat, LABELS, concurrency=1) as teacher:
        for _ in teacher.label([f"my card {n}" for n in range(50)]):
            break
        else:
            pytest.fail("no answer")
    assert len(chat.bodies) < 50


@pytest.mark.parametrize("votes", [0, 26])
def test_labeller_bounds_votes(chat: ChatServer, votes: int) -> None:
    with pytest.raises(InvalidInput, match="votes"), labeller(chat, LABELS, votes=votes):
        pass


@pytest.mark.parametrize("labels", [["a"], ["a", "a"], ["a", ""]])
def test_labeller_refuses_labels_that_are_none(chat: ChatServer, labels: list[str]) -> None:
    with pytest.raises(InvalidInput, match="labels"), labeller(chat, labels):
        pass


def test_writer_asks_with_other_seeds(chat: ChatServer) -> None:
    chat.answer = user_text
    with writer(chat) as teacher:
        answers = teacher.write("Write.", Sampling(50, 0.9, seed=7), 3)
    assert [answer.text for answer in answers] == ["Write."] * 3
    assert sorted(body["seed"] for body in chat.bodies) == [7, 8, 9]


def test_writer_of_this_machine_makes_answers_side_by_side(store: Store, smollm: Path) -> None:
    sampling = Sampling(16, 0.9, seed=7)
    with Runtime(models=[GENERATOR], store=store) as runtime:
        teacher = LocalWriter(runtime, GENERATOR, name="smol")
        first, second = teacher.write("Write a long story about a fish.", sampling, 2)
    assert first.text.strip() != second.text.strip()
    assert not first.complete
    assert first.logprob is None
