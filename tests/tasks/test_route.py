"""Route: a choice with a target behind each label."""

from __future__ import annotations

import pytest
from doubles import Encoder, Generator, serving

from sprat.config import LimitsConfig
from sprat.errors import InvalidInput, NotFound, TaskNotSupported
from sprat.tasks import route
from sprat.values import Destination, RouteSet

ROUTES = RouteSet(
    "gen",
    (Destination("red", "like a rose", "queue-1"), Destination("blue"), Destination("green")),
)


def generator() -> Generator:
    return Generator(context_length=1000)


async def test_route_target_is_that_of_the_most_probable_destination() -> None:
    async with serving(Encoder(), generator()) as service:
        result = await service.route(ROUTES, ["red", "blue"], top_k=2)
    first, second = result.items
    assert first is not None
    assert second is not None
    assert (first.target, first.classification.label) == ("queue-1", "red")
    # Without a target, the name is it.
    assert (second.target, second.classification.label) == ("blue", "blue")
    assert len(first.classification.scores) == 2
    assert (result.model, result.task_version, result.calibrated) == ("gen", "", False)


async def test_route_prompt_holds_names_and_descriptions_but_no_targets() -> None:
    engine = generator()
    prompts: list[str] = []
    engine.choices.on_start = lambda choice: prompts.append(
        "".join(map(chr, choice.prompt.tolist()))
    )
    async with serving(Encoder(), engine) as service:
        await service.route(ROUTES, ["red"])
    assert route.GENERAL_INSTRUCTIONS in prompts[0]
    assert "- red: like a rose\n- blue\n- green" in prompts[0]
    assert "queue-1" not in prompts[0]


async def test_route_partial_answers_the_good_ones() -> None:
    async with serving(Encoder(), generator()) as service:
        result = await service.route(ROUTES, ["red", ""], partial=True)
    assert [item and item.target for item in result.items] == ["queue-1", None]
    assert [(error.index, error.reason) for error in result.errors] == [(1, "INVALID_INPUT")]


@pytest.mark.parametrize(
    ("routes", "field"),
    [
        (RouteSet("gen", ()), "destinations"),
        (RouteSet("gen", (Destination("a"), Destination("a", target="b"))), "destinations[1]"),
        (RouteSet("gen", (Destination("a"), Destination(" "))), "destinations[1]"),
        (RouteSet("gen", (Destination("a"), Destination("b", "x" * 401))), "destinations[1]"),
        (RouteSet("gen", ROUTES.destinations, instructions="x" * 401), "instructions"),
        (RouteSet("gen", ROUTES.destinations, normalize_length=True), "normalize_length"),
    ],
)
async def test_route_refuses_bad_destinations(routes: RouteSet, field: str) -> None:
    limits = LimitsConfig(max_text_bytes=400)
    async with serving(Encoder(), generator(), limits=limits) as service:
        with pytest.raises(InvalidInput) as caught:
            await service.route(routes, ["red"])
    assert caught.value.field == field


async def test_route_needs_a_generative_model() -> None:
    async with serving(Encoder(), generator()) as service:
        with pytest.raises(TaskNotSupported, match="route"):
            await service.route(RouteSet("enc", ROUTES.destinations), ["red"])
        with pytest.raises(NotFound):
            await service.route(RouteSet("nothing", ROUTES.destinations), ["red"])
