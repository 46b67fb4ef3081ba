"""Route: a choice with a target behind each label."""

from __future__ import annotations

import pytest
from doubles import ENCODER, LABELS, TASK, Encoder, Generator, bundle, classify_task, serving

from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.config import LimitsConfig
from sprat.errors import InputTooLong, InvalidInput, NotFound, TaskNotSupported
from sprat.model import require_encoder
from sprat.service import Service
from sprat.tasks import route
from sprat.tasks.route import RouteTask
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


# -- bundles ---------------------------------------------------------------------------------

TARGETS = Route(
    targets={label: f"queue://{label}" for label in LABELS}, default_target="queue://people"
)


def serve_routes(service: Service, *, accept_at: float = 0.0, targets: Route = TARGETS) -> None:
    """Put a route task of the encoder beside the classifier of the service."""
    model = require_encoder(service.registry.model(ENCODER), "route")
    made = bundle(model.manifest)
    changed = made.manifest.model_copy(update={"kind": "route", "route": targets})
    service.registry.tasks["routes"] = RouteTask(
        classify_task("routes", Bundle(changed, made.heads), model, accept_at=accept_at), targets
    )


async def test_route_bundle_answers_as_its_classifier_with_targets() -> None:
    async with serving(Encoder(), generator()) as service:
        serve_routes(service, accept_at=0.4)
        result = await service.route("routes", ["a", "b c"], top_k=2)
        expected = await service.classify(TASK, ["a", "b c"], top_k=2)
    assert [item and item.classification for item in result.items] == list(expected.items)
    for item in result.items:
        assert item is not None
        assert item.target == f"queue://{item.classification.label or 'people'}"
    assert result.calibrated
    assert (result.model, result.model_version) == (expected.model, expected.model_version)
    assert result.task_version != expected.task_version


@pytest.mark.parametrize("default", ["queue://people", ""])
async def test_route_bundle_sends_what_it_is_not_sure_of_to_the_default(default: str) -> None:
    async with serving(Encoder(), generator()) as service:
        targets = TARGETS.model_copy(update={"default_target": default})
        serve_routes(service, accept_at=1.0, targets=targets)
        (item,) = (await service.route("routes", ["a"])).items
    assert item is not None
    assert item.target == default
    assert item.classification.abstained
    assert item.classification.scores[0].score < 1


async def test_route_bundle_long_texts_are_cut_only_when_asked() -> None:
    long = " ".join("abcdefgh" * 20)
    async with serving(Encoder(), generator()) as service:
        serve_routes(service)
        with pytest.raises(InputTooLong):
            await service.route("routes", [long])
        (item,) = (await service.route("routes", [long], truncation="truncate")).items
        assert item is not None
        assert item.classification.dropped_tokens > 0
        partial = await service.route("routes", [long, "a"], partial=True)
        assert [each is None for each in partial.items] == [True, False]
        with pytest.raises(InvalidInput, match="never cut"):
            await service.route(ROUTES, ["red"], truncation="truncate")


async def test_route_and_classify_are_different_tasks() -> None:
    async with serving(Encoder(), generator()) as service:
        serve_routes(service)
        assert service.registry.task("routes").info.kind == "route"
        with pytest.raises(TaskNotSupported, match="task routes is a task of kind route"):
            await service.classify("routes", ["a"])
        with pytest.raises(TaskNotSupported, match="cannot route"):
            await service.route(TASK, ["a"])


async def test_route_bundle_respects_the_limits_of_the_service() -> None:
    async with serving(Encoder(), generator(), limits=LimitsConfig(max_texts=2)) as service:
        serve_routes(service)
        with pytest.raises(InvalidInput, match="1 to 2 texts, got 3"):
            await service.route("routes", ["a", "b", "c"])
