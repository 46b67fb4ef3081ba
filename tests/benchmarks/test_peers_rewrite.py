from __future__ import annotations

import pytest

from sprat.benchmarks.peers_rewrite import copied_share

TEXT = "one two three four five six seven eight"


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        (TEXT, 1.0),
        ("one two three four", 1.0),
        ("now one two three four or not at", 0.5),
        ("one three five seven", 0.0),
        ("two three four", 0.0),
        ("", 0.0),
    ],
)
def test_peers_rewrite_counts_words_that_were_copied_in_a_row(answer: str, share: float) -> None:
    assert copied_share(TEXT, answer) == share
