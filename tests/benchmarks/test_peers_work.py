from __future__ import annotations

import pytest

from sprat.benchmarks import data, peers_work


def test_peers_work_grammar_has_just_the_options() -> None:
    assert peers_work.grammar(["a", "top-up"]) == 'root ::= "a" | "top-up"'


def test_peers_work_grammar_quotes_what_would_end_an_option() -> None:
    assert peers_work.grammar(['say "no"\n', "back\\slash"]) == (
        r'root ::= "say \"no\"\n" | "back\\slash"'
    )


def test_peers_work_tasks_have_20_labels_and_prompts_that_begin_differently() -> None:
    names = [label.name for label in peers_work.LABELS]
    assert len(set(names)) == 20
    assert len({each.split()[0] for each in peers_work.INSTRUCTIONS}) == 3


@pytest.mark.parametrize("make", [peers_work.stories, peers_work.letters])
def test_peers_work_prompts_differ(make) -> None:  # type: ignore[no-untyped-def]
    prompts = make(data.tickets(), 40)
    assert len(set(prompts)) == 40


def test_peers_work_mixes_texts_the_same_way_every_time() -> None:
    source = data.tickets()
    mixed = peers_work.mixed(source)
    assert mixed == peers_work.mixed(source)
    assert mixed != source.texts
    assert sorted(mixed) == sorted(source.texts)


GOOD = '{"product": "card", "mood": "calm", "urgent": false, "subject": "a new card"}'


def test_peers_work_knows_what_fits_its_schema() -> None:
    assert peers_work.fits_schema(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        "[]",
        "{}",
        GOOD.replace("card", "boat", 1),
        GOOD.replace("false", "0"),
        GOOD.replace("a new card", "x" * 41),
        GOOD.replace("}", ', "more": 1}'),
    ],
)
def test_peers_work_knows_what_does_not_fit_its_schema(text: str) -> None:
    assert not peers_work.fits_schema(text)
