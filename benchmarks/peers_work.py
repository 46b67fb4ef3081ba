"""The work that sprat and other servers are given: tasks, schema, questions and prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sprat.benchmarks.data import Texts
from sprat.values import Label

LABELS = (
    Label("card_arrival", "a new card has not come yet"),
    Label("card_not_working", "a card is refused or faulty"),
    Label("card_payment_fee", "a fee on a card payment"),
    Label("card_swallowed", "a machine kept the card"),
    Label("lost_or_stolen_card", "a card is gone"),
    Label("cash_withdrawal_fee", "a fee for taking out cash"),
    Label("cash_not_received", "no cash, or too little, came out"),
    Label("change_pin", "a new PIN is wanted"),
    Label("blocked_pin", "the PIN does not work any more"),
    Label("exchange_rate", "how currencies are converted"),
    Label("top_up_failed", "money could not be added"),
    Label("top_up_limits", "how much can be added"),
    Label("transfer_pending", "a transfer has not arrived"),
    Label("transfer_failed", "a transfer was declined"),
    Label("transfer_fee", "a fee on a transfer"),
    Label("refund_missing", "a refund has not come"),
    Label("verify_identity", "proof of who the customer is"),
    Label("edit_personal_details", "a new name or address"),
    Label("close_account", "the customer wants to leave"),
    Label("other", "none of these"),
)

INSTRUCTIONS = (
    "A customer of a bank has written. Say what it is about.",
    "You sort letters for the handbook of a bank. Name the page that answers the letter.",
    "Three teams share this inbox. Find the subject that decides which of them gets the message.",
)
"""One for each task: the first words differ, so no server can keep one prompt for all of them."""

FIELDS: dict[str, Any] = {
    "product": {"type": "string", "enum": ["card", "account", "transfer", "app", "other"]},
    "mood": {"type": "string", "enum": ["calm", "worried", "angry"]},
    "urgent": {"type": "boolean"},
    "subject": {"type": "string", "maxLength": 40},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": FIELDS,
    "required": list(FIELDS),
    "additionalProperties": False,
}
EXTRACT_INSTRUCTIONS = (
    "A customer of a bank has written. Fill in a form: the product that it is about, the mood of "
    "the customer, whether it is urgent, and the subject in the customer's own words."
)

QUESTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("product", "What is it about?", ("card", "account", "transfer", "top-up", "other")),
    ("urgent", "Does it have to be answered today?", ("yes", "no")),
    ("mood", "How does the customer feel?", ("calm", "worried", "angry")),
    ("fraud", "Does the customer suspect fraud?", ("yes", "no")),
    ("abroad", "Is the customer in another country?", ("yes", "no")),
    ("money_lost", "Is money missing?", ("yes", "no")),
    ("channel", "Where did it happen?", ("shop", "cash machine", "app", "unknown")),
    ("repeated", "Has the customer written about this before?", ("yes", "no")),
)
"""Name, question and options."""


def grammar(options: Sequence[str]) -> str:
    """A GBNF grammar of just these answers."""
    return "root ::= " + " | ".join(json.dumps(each, ensure_ascii=False) for each in options)


def fits_schema(text: str) -> bool:
    """Whether an answer is a value that `SCHEMA` allows."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return (
        isinstance(value, dict)
        and value.keys() == FIELDS.keys()
        and all(value[name] in FIELDS[name]["enum"] for name in ("product", "mood"))
        and isinstance(value["urgent"], bool)
        and isinstance(value["subject"], str)
        and len(value["subject"]) <= FIELDS["subject"]["maxLength"]
    )


def chat(system: str, text: str) -> list[dict[str, str]]:
    """A chat as servers of other makes take it."""
    return [{"role": "system", "content": system}, {"role": "user", "content": text}]


def stories(source: Texts, count: int) -> tuple[str, ...]:
    """Raw prompts of some 60 tokens that go on for long; no two begin alike."""
    texts = source.exactly(count + 2)
    return tuple(
        "\n".join(
            [f"Letter {number + 1000} to a bank, with the answer.", *texts[number : number + 3], ""]
        )
        for number in range(count)
    )


def letters(source: Texts, count: int) -> tuple[str, ...]:
    """Texts of about 100 tokens, each made of several short ones."""
    texts = source.exactly(count * 8)
    return tuple(" ".join(texts[number * 8 : number * 8 + 8]) for number in range(count))
