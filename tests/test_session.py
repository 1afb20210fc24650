"""What a process keeps is bounded and let go of in one call."""

from __future__ import annotations

from cdc_flower.session import Session, kept, session


def test_a_shelf_keeps_what_was_used_last():
    made, shelf = [], Session()

    def make(key):
        return shelf.once("things", key, lambda: made.append(key) or key, most=2)

    for key in ("a", "b", "a", "c", "a", "b"):
        make(key)
    assert made == ["a", "b", "c", "b"]
    shelf.close()
    make("a")
    assert made[-1] == "a"


def test_a_function_is_called_again_when_the_session_was_closed():
    calls = []

    @kept(2)
    def double(x: int) -> int:
        calls.append(x)
        return 2 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    session().close()
    assert double(1) == 2
    assert calls == [1, 2, 1]
