"""Files of targets: every label has one, and nothing else is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sprat.errors import ConfigError
from sprat.train.targets import check_target, read_targets

LABELS = ("billing", "late parcel")
GOOD = {"billing": "queue://money", "late parcel": "ops"}


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", '{"late parcel": "ops", "billing": "queue://money"}'),
        ("t.JSON", '\ufeff{"late parcel": "ops", "billing": "queue://money"}'),
        ("t.toml", 'billing = "queue://money"\n"late parcel" = "ops"\n'),
    ],
)
def test_targets_are_read_in_the_order_of_labels(tmp_path: Path, name: str, content: str) -> None:
    found = read_targets(write(tmp_path, name, content), LABELS)
    assert list(found.items()) == list(GOOD.items())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", '{"billing": "a"}', "no target for 'late parcel'"),
        (
            "t.json",
            '{"billing": "a", "late parcel": "b", "x": "c"}',
            "not among the labels of the data: 'x'",
        ),
        ("t.json", '{"billing": 5, "late parcel": "b"}', "targets.billing: expected a string"),
        ("t.json", '{"billing": " ", "late parcel": "b"}', "targets.billing: empty"),
        ("t.json", "[1]", "expected an object, found list"),
        ("t.json", "{", "line 1 column 2"),
        ("t.json", '{"a": ' + "9" * 5000 + "}", "a number too long"),
        ("t.json", b"\xff{}", "not UTF-8"),
        ("t.toml", "a = ", "Invalid value"),
        ("t.toml", "[billing]\nx = 1\n", "no target for 'late parcel'"),
        ("t.yaml", "a: b", "expected .json or .toml, found .yaml"),
        ("t", "", "found no suffix"),
    ],
)
def test_targets_that_are_wrong_are_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_targets(write(tmp_path, name, content), LABELS)
    assert message in caught.value.message


def test_targets_many_missing_ones_are_counted(tmp_path: Path) -> None:
    labels = [f"label{i:02}" for i in range(25)]
    with pytest.raises(ConfigError, match=r"no target for 'label00', .* 'label09' and 15 more$"):
        read_targets(write(tmp_path, "t.json", "{}"), labels)


def test_targets_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_targets(tmp_path / "absent.json", LABELS)


@pytest.mark.parametrize("value", ["a" * 1025, "a\nb", "a\0", "\ud800"])
def test_targets_that_cannot_travel_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^--default: "):
        check_target(value, "--default")
    assert check_target("https://host/queue?x=1", "--default") == "https://host/queue?x=1"
