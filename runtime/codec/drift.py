"""How far traffic has drifted, between values and messages."""

from __future__ import annotations

from typing import cast

from sprat.proto.v1 import sprat_pb2 as pb
from sprat.values import Drift, DriftFigure, DriftReference, DriftSubject, Verdict

_VERDICTS: dict[Verdict, pb.Verdict] = {
    "unknown": pb.VERDICT_UNSPECIFIED,
    "too_few": pb.VERDICT_TOO_FEW,
    "stable": pb.VERDICT_STABLE,
    "watch": pb.VERDICT_WATCH,
    "drifted": pb.VERDICT_DRIFTED,
}
_NAMES: dict[int, Verdict] = {int(number): name for name, number in _VERDICTS.items()}
_OPTIONAL = ("share", "low", "high", "expected", "psi", "chance", "ks", "p")


def drift_message(value: Drift) -> pb.Drift:
    """A `Drift` as a message."""
    return pb.Drift(
        verdict=_VERDICTS[value.verdict],
        rows=value.rows,
        figures=[
            pb.DriftFigure(
                what=each.what,
                tier=each.tier,
                rows=each.rows,
                verdict=_VERDICTS[each.verdict],
                **{name: getattr(each, name) for name in _OPTIONAL},
            )
            for each in value.figures
        ],
        note=value.note,
        reference=value.reference or "",
        reference_rows=value.reference_rows,
    )


def drift(message: pb.Drift) -> Drift:
    """A message as a `Drift`; a verdict of a newer server is unknown here."""
    return Drift(
        verdict=_NAMES.get(message.verdict, "unknown"),
        rows=message.rows,
        figures=tuple(
            DriftFigure(
                what=cast(DriftSubject, each.what),
                tier=each.tier,
                rows=each.rows,
                verdict=_NAMES.get(each.verdict, "unknown"),
                **{
                    name: getattr(each, name) if each.HasField(name) else None for name in _OPTIONAL
                },
            )
            for each in message.figures
        ),
        note=message.note,
        reference=cast(DriftReference, message.reference) if message.reference else None,
        reference_rows=message.reference_rows,
    )
