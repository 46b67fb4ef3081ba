"""What pages show of the confidence in whole answers."""

from __future__ import annotations

from sprat.train import plots
from sprat.train.evaluate_whole import WHOLE_ECE, WholeReport
from sprat.train.page_parts import Plot

WHOLE_TITLE = "Calibration error (ECE) of whole answers"


def whole_note(name: str, whole: WholeReport | None) -> str:
    """What stands below a figure: that of whole answers says what perfect ones would show."""
    if whole is None or name != WHOLE_ECE:
        return ""
    return f"Perfect confidences would show {whole.ece_noise:.3f} on so few rows."


def whole_plot(whole: WholeReport | None) -> list[Plot]:
    """Their reliability, where there are any."""
    if whole is None:
        return []
    about = (
        "How many answers of some confidence are right as a whole: with all that is there, and "
        "nothing else. Grey bars: where 95 % of perfectly calibrated bins would lie."
    )
    return [("Reliability: whole answers", about, plots.reliability(whole.reliability))]
