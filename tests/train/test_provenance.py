"""What a report says of where a training came from."""

from __future__ import annotations

from collections.abc import Callable

from sprat.train.data import Dataset
from sprat.train.provenance import LIBRARIES, TORCH, DataSource, Provenance


def test_provenance_tells_splits_of_one_file_apart(dataset: Callable[..., Dataset]) -> None:
    rows = dataset(30)
    first, second = (DataSource.of(rows.take(part)) for part in (range(20), range(5, 25)))
    assert (first.rows, second.rows) == (20, 20)
    assert first.lines != second.lines
    assert first == DataSource.of(rows.take(range(20)))


def test_provenance_names_the_versions_that_count(dataset: Callable[..., Dataset]) -> None:
    rows = dataset(30)
    train, test, held = rows.take(range(20)), rows.take(range(20, 30)), rows.take(range(5))
    made = Provenance.of(train, test, seed=3)
    assert made.validation is None
    assert {"python", "sprat", "numpy"} <= set(made.versions) <= {"python", "sprat", *LIBRARIES}
    tuned = Provenance.of(train, test, seed=3, validation=held, libraries=(*LIBRARIES, *TORCH))
    assert tuned.validation == DataSource.of(held)
    assert set(made.versions) <= set(tuned.versions)
    assert Provenance.model_validate_json(made.model_dump_json()) == made
