"""The work that sprat and other servers are given: tasks, schema, questions and prompts."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sprat.benchmarks.data import Texts
from sprat.values import Label

LABELS = (
    Label("Refund_not_showing_up", "a refund has not come"),
    Label("atm_support", "where cash can be had"),
    Label("beneficiary_not_allowed", "a payee is refused"),
    Label("card_arrival", "a new card has not come yet"),
    Label("card_payment_fee_charged", "a fee on a card payment"),
    Label("cash_withdrawal_charge", "a fee for cash"),
    Label("contactless_not_working", "the card must be put in"),
    Label("declined_transfer", "the bank refused it"),
    Label("exchange_charge", "the price of changing money"),
    Label("failed_transfer", "it did not go through"),
    Label("getting_spare_card", "one more card"),
    Label("order_physical_card", "a card to hold"),
    Label("pending_top_up", "money is not there yet"),
    Label("request_refund", "money back for a purchase"),
    Label("top_up_by_bank_transfer_charge", "a fee for adding money"),
    Label("top_up_limits", "how much can be added"),
    Label("transfer_fee_charged", "a fee on a transfer"),
    Label("unable_to_verify_identity", "papers are refused"),
    Label("virtual_card_not_working", "a card without plastic fails"),
    Label("wrong_exchange_rate_for_cash_withdrawal", "cash abroad cost more"),
)
"""Every fourth of BANKING77's 77 labels in alphabetical order; the descriptions are ours."""

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


def mixed(source: Texts) -> tuple[str, ...]:
    """The texts in another order, always the same: BANKING77 is sorted by label."""
    texts = list(source.texts)
    random.Random(0).shuffle(texts)
    return tuple(texts)


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
    texts = replace(source, texts=mixed(source)).exactly(count + 2)
    return tuple(
        "\n".join(
            [f"Letter {number + 1000} to a bank, with the answer.", *texts[number : number + 3], ""]
        )
        for number in range(count)
    )


def letters(source: Texts, count: int) -> tuple[str, ...]:
    """Texts of about 100 tokens, each made of several short ones."""
    texts = replace(source, texts=mixed(source)).exactly(count * 8)
    return tuple(" ".join(texts[number * 8 : number * 8 + 8]) for number in range(count))
