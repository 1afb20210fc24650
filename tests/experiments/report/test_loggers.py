import logging

from experiments.report.loggers import WATCHED, told


def test_warnings_are_handed_over_in_one_line_and_handlers_come_back():
    said, loggers = [], [logging.getLogger(name) for name in WATCHED]
    before = [(list(logger.handlers), logger.propagate) for logger in loggers]
    with told(said.append):
        logging.getLogger("strategies").warning("a\n  b %s", "c")
        logging.getLogger("flwr").error("d")
        logging.getLogger("clients.task").warning("e")
        logging.getLogger("flwr").info("f")
    assert said == ["a b c", "d", "e"]
    assert [(list(logger.handlers), logger.propagate) for logger in loggers] == before
