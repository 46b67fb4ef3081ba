"""`sprat route` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from servers import ENCODER, GENERATOR, TASK, Server, sprat

from sprat.bundle import Bundle
from sprat.bundle_manifest import Route
from sprat.store import Store

TO = ("--to", "billing=Invoices and payments", "--to", "shipping=Parcels", "--to", "other")


@pytest.fixture(scope="module")
def routes(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the tickets with a target for each label."""
    made = Bundle.load(bundle)
    manifest = made.manifest
    route = Route(
        targets={label: f"queue://{label}" for label in manifest.labels}, default_target="people"
    )
    folder = tmp_path_factory.mktemp("bundles") / "routes"
    folder.mkdir()
    update = {"name": "routes", "kind": "route", "route": route}
    Bundle(manifest.model_copy(update=update), made.heads).save(folder, report="{}")
    return folder


def test_route_by_a_bundle_shows_targets(store: Store, routes: Path) -> None:
    done = sprat(store, "route", str(routes), "where is my parcel?")
    assert done.returncode == 0, done.stderr
    assert "queue://shipping" in done.stdout
    assert "confidence" in done.stdout
    done = sprat(store, "route", str(routes), "--json", input="where is my parcel?\n\nrefund me\n")
    report = json.loads(done.stdout)
    assert report["calibrated"]
    first, second = report["items"]
    assert first["target"] == "queue://shipping"
    assert second["target"] == f"queue://{second['classification']['label']}"


@pytest.mark.parametrize("served", [True, False])
def test_route_to_places_of_its_own_with_and_without_a_server(
    store: Store, smollm: Path, server: Server, served: bool
) -> None:
    where = ("--server", server.address) if served else ()
    done = sprat(store, "route", GENERATOR, "Where is my parcel?", *TO, *where, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (item,) = report["items"]
    assert item["target"] in ("billing", "shipping", "other")
    assert {s["label"] for s in item["classification"]["scores"]} == {
        "billing",
        "shipping",
        "other",
    }
    assert not report["calibrated"]


def test_route_by_a_task_of_the_server(store: Store, server: Server) -> None:
    done = sprat(store, "route", "teams", "The invoice is wrong.", "--server", server.address)
    assert done.returncode == 0, done.stderr
    assert "score" in done.stdout
    assert "confidence" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GENERATOR, "x", *TO, "--truncate"), "--truncate"),
        ((GENERATOR, "x", "--to", "a"), "destinations: expected 2 to 256, got 1"),
        ((GENERATOR, "x", "--to", "a", "--to", "=when"), "destinations[1]"),
        ((GENERATOR, "x", "--instructions", "Sort."), "--instructions: expected --to"),
        ((TASK, "x"), "cannot route"),
        ((ENCODER, "x", *TO), "route needs a generative model"),
    ],
)
def test_route_refuses(
    store: Store, server: Server, arguments: tuple[str, ...], message: str
) -> None:
    done = sprat(store, "route", *arguments, "--server", server.address)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_route_is_explained(store: Store, routes: Path) -> None:
    done = sprat(store, "explain", str(routes), "where is my parcel?", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (tier,) = report["tiers"]
    assert (tier["model"], tier["decision"]) == (ENCODER, "answers")
    assert report["answer"]["label"] == tier["scores"][0]["label"] == "shipping"
    strict = sprat(store, "explain", str(routes), "where is my parcel?", "--accept-at", "1")
    assert "abstains" in strict.stdout


def test_explain_refuses_other_kinds_of_tasks(store: Store, server: Server) -> None:
    done = sprat(store, "explain", "triage", "x", "--server", server.address)
    assert done.returncode == 1
    assert "task triage is a task of kind decide" in done.stderr
