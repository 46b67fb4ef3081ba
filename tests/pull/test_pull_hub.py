from __future__ import annotations

import hashlib
from pathlib import Path

from hf_server import Hub
from pulling import (
    assert_nothing_there,
    from_hub,
    leftovers,
    run_pull,
    start_pull,
)
from tiny_models import (
    encoder_files,
    entry,
    write_files,
)

from sprat.catalog import HubRepository
from sprat.store import Store

LARGE_ROWS = 200_000
"""Weights of 25 MB: a download writes 10 MB at a time, and this one has to be cut in between."""


def test_pull_hub_takes_what_it_needs_and_the_stated_licence(
    store: Store, files: dict[str, bytes], hub: Hub
) -> None:
    extra = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"onnx", "vocab.txt": b"words"}
    commit = hub.add("org/Tiny_Model", {**files, **extra}, licence="mit")
    outcome = from_hub(hub, "hf:org/Tiny_Model", store)
    manifest = outcome.pulled
    assert (manifest.name, manifest.licence) == ("tiny_model", "mit")
    assert manifest.source == f"hf:org/Tiny_Model ({commit})"
    asked = {r.path.rpartition("/")[2] for r in hub.requests if "resolve" in r.path}
    assert asked == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "sentence_bert_config.json",
    }
    (download,) = (p for p in outcome.phases if p[0].startswith("download"))
    assert (
        download[1] == download[2] == sum(len(files[name]) for name in files if name != "README.md")
    )

    before = len(hub.requests)
    again = from_hub(hub, "hf:org/Tiny_Model", store)
    assert again.pulled == manifest
    assert len(hub.requests) == before, "what is there needs no network"


def test_pull_hub_revision(store: Store, files: dict[str, bytes], hub: Hub) -> None:
    commit = hub.add("org/m", files)
    outcome = from_hub(hub, f"hf:org/m@{commit}", store)
    assert outcome.pulled.source == f"hf:org/m@{commit} ({commit})"
    assert from_hub(hub, "hf:org/m", store).error == "StoreError", "another revision may differ"
    gone = from_hub(hub, "hf:org/m@v9", store, name="v9")
    assert gone.error == "DownloadError"
    assert "no revision v9" in gone.message


def test_pull_hub_token_is_sent_to_the_hub_and_nowhere_else(
    store: Store, files: dict[str, bytes], hub: Hub
) -> None:
    hub.add("org/private", encoder_files(rows=100), token="hf_secret")
    refused = from_hub(hub, "hf:org/private", store)
    assert refused.error == "DownloadError"
    assert "HF_TOKEN does not give access" in refused.message
    assert_nothing_there(store)
    hub.requests.clear()
    assert from_hub(hub, "hf:org/private", store, environment={"HF_TOKEN": "hf_secret"}).pulled
    assert any(r.authorization for r in hub.requests)
    assert not any(r.authorization for r in hub.requests if r.path.startswith("/blobs/"))


def test_pull_hub_offline_and_unreachable(store: Store, files: dict[str, bytes], hub: Hub) -> None:
    hub.add("org/m", files)
    offline = from_hub(hub, "hf:org/m", store, environment={"HF_HUB_OFFLINE": "1"})
    assert offline.error == "DownloadError"
    assert "HF_HUB_OFFLINE is set" in offline.message
    assert not hub.requests
    unreachable = run_pull(
        "hf:org/m", store.root, environment={"HF_ENDPOINT": "http://127.0.0.1:9"}
    )
    assert unreachable.error == "DownloadError"
    assert "hf:org/m: ConnectError" in unreachable.message
    assert_nothing_there(store)


def test_pull_hub_cut_connection_is_resumed(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=LARGE_ROWS)
    hub.add("org/m", files)
    hub.cuts["model.safetensors"] = [11_000_000, 12_000_000]
    outcome = from_hub(hub, "hf:org/m", store)
    offsets = [r.offset for r in hub.downloads("blobs/org/m/model.safetensors")]
    assert len(offsets) == 3
    assert offsets == sorted(set(offsets))
    assert offsets[0] == 0
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert digest in {f.sha256 for f in outcome.pulled.files}
    store.model("m", check=True)


def test_pull_hub_killed_download_leaves_no_model_and_is_resumed(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=LARGE_ROWS)
    hub.add("org/m", files)
    hub.stalls["model.safetensors"] = 15_000_000
    process = start_pull("hf:org/m", store.root, environment={"HF_ENDPOINT": hub.url})
    assert hub.stalled.wait(60)
    part = store.root / "downloads" / "m"
    for _ in range(600):
        if sum(p.stat().st_size for p in part.glob("*.part")) >= 10_000_000:
            break
        hub.stalled.clear()
        hub.stalled.wait(0.1)
    process.kill()
    process.communicate()
    assert store.models() == []
    kept = max(p.stat().st_size for p in part.glob("*.part"))
    assert kept >= 10_000_000

    hub.stalls.clear()
    hub.requests.clear()
    assert from_hub(hub, "hf:org/m", store).pulled
    assert [r.offset for r in hub.downloads("blobs/org/m/model.safetensors")] == [kept]
    store.model("m", check=True)
    assert leftovers(store) == []


def part_of_weights(store: Store, files: dict[str, bytes]) -> Path:
    """Where the download of a model ``m`` keeps what it has of the weights."""
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    return store.partial_downloads("m") / f"{digest}.part"


def test_pull_hub_part_that_is_too_long_is_begun_anew(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=100)
    hub.add("org/m", files)
    part_of_weights(store, files).write_bytes(b"x" * (len(files["model.safetensors"]) + 1))
    assert from_hub(hub, "hf:org/m", store).pulled == store.model("m", check=True)[0]


def test_pull_hub_part_with_other_content_is_found_and_dropped(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=100)
    hub.add("org/m", files)
    part_of_weights(store, files).write_bytes(b"x" * 100)
    assert "the hub announced sha256" in from_hub(hub, "hf:org/m", store).message
    assert from_hub(hub, "hf:org/m", store).pulled == store.model("m", check=True)[0]


def test_pull_hub_that_sends_something_else(store: Store, hub: Hub) -> None:
    files = encoder_files(rows=100)
    hub.add("org/m", files)
    weights = files["model.safetensors"]
    hub.lies["model.safetensors"] = b"x" * len(weights)
    outcome = from_hub(hub, "hf:org/m", store)
    assert outcome.error == "DownloadError"
    assert "model.safetensors: the hub announced sha256" in outcome.message
    assert store.models() == []
    assert not list((store.root / "downloads").rglob("*.part")), "nothing of it is resumed"
    hub.lies.clear()
    assert from_hub(hub, "hf:org/m", store).error == ""


def test_pull_hub_pins_hold_whatever_the_hub_announces(store: Store, hub: Hub) -> None:
    files = encoder_files()
    commit = hub.add("org/m", {**files, "config.json": files["config.json"] + b" "})
    added = entry(files, HubRepository("org/m", revision=commit))
    outcome = from_hub(hub, "tiny", store, entry=added)
    assert outcome.error == "DownloadError"
    assert "source/config.json: expected" in outcome.message
    assert store.models() == []


def test_pull_hub_copies_from_the_users_cache(
    store: Store, tmp_path: Path, files: dict[str, bytes], hub: Hub
) -> None:
    commit = hub.add("org/m", files)
    snapshot = tmp_path / "cache" / "hub" / "models--org--m" / "snapshots" / commit
    write_files(snapshot, files)
    added = entry(files, HubRepository("org/m", revision=commit))
    outcome = from_hub(
        hub,
        "tiny",
        store,
        entry=added,
        environment={"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert outcome.pulled == store.model("tiny", check=True)[0]
    assert not hub.requests
    assert (snapshot / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_pull_hub_several_gguf_files_need_a_choice(store: Store, hub: Hub) -> None:
    hub.add("org/m-GGUF", {"m.Q4_0.gguf": b"4", "m.Q8_0.gguf": b"8", "README.md": b""})
    outcome = from_hub(hub, "hf:org/m-GGUF", store)
    assert outcome.error == "InvalidInput"
    assert "hf:org/name:m.Q4_0.gguf: m.Q4_0.gguf, m.Q8_0.gguf" in outcome.message
    gone = from_hub(hub, "hf:org/m-GGUF:m.Q2_K.gguf", store)
    assert gone.error == "UnsupportedModel"
    assert "no m.Q2_K.gguf is there" in gone.message
    assert_nothing_there(store)
