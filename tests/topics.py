"""Topics, the words that speak of them, and rows made of such words."""

from __future__ import annotations

import json
import random
from pathlib import Path

TOPICS = {
    "billing": "invoice charge refund card price payment tax receipt amount currency",
    "delivery": "parcel courier late address package tracking depot arrive ship box",
    "technical": "crash error screen freeze update install login browser reboot log",
}

TOY = {"delivery": ("parcel", "late"), "money": ("refund", "broken")}


def toy_rows(count: int, seed: int, *, purity: float = 0.8) -> list[dict[str, str]]:
    """Words of the topic, with a share of some of the other; no two texts alike."""
    rng = random.Random(seed)
    made: dict[str, str] = {}
    while len(made) < count:
        label, other = rng.sample(sorted(TOY), 2)
        words = [
            rng.choice(TOY[label if rng.random() < purity else other])
            for _ in range(rng.randint(4, 12))
        ]
        made.setdefault(" ".join(words), label)
    return [{"text": text, "label": label} for text, label in made.items()]


def write_rows(path: Path, given: list[dict[str, str]]) -> Path:
    """Rows as a file that commands read."""
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    return path
