"""What loggers say while something is drawn that their lines would tear."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import flwr.app  # noqa: F401  here, so that the handler of its logger is there to be set aside

WATCHED = ("flwr", "cdc_flower", "strategies", "clients", "transformers", "ray")


class To(logging.Handler):
    """Hands each warning to a function, in one line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        """One line, without what its words are spread over."""
        self.say(" ".join(record.getMessage().split()))


@contextmanager
def told(say: Callable[[str], None]) -> Iterator[None]:
    """In this block warnings of `WATCHED` go to `say` alone, not to the terminal."""
    loggers = [logging.getLogger(name) for name in WATCHED]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [To(say)], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
