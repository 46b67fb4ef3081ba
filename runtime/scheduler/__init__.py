"""The threads of sprat. Nothing outside this package and `sprat.budget` starts one.

But for `sprat.server.metrics`, whose HTTP server has one for each scrape.

One `EncodeScheduler` or `GenerateScheduler` per model; all hold permits of one
`sprat.budget.ComputePermits` while they compute. Results go back to the event loop through a
`Mailbox`. A `BatchWriter` writes what must not hold up requests.
"""

from sprat.scheduler.choose import ChoiceWork
from sprat.scheduler.encode import EncodeScheduler
from sprat.scheduler.generate import GenerateScheduler, GenerateWork
from sprat.scheduler.loop import ComputePool, LoopThread, Mailbox
from sprat.scheduler.slices import SLICE_TOKENS
from sprat.scheduler.writer import BatchWriter

__all__ = [
    "SLICE_TOKENS",
    "BatchWriter",
    "ChoiceWork",
    "ComputePool",
    "EncodeScheduler",
    "GenerateScheduler",
    "GenerateWork",
    "LoopThread",
    "Mailbox",
]
