"""An item of a feed with a picture needs nothing more; see `test_stream.py` and `test_feeds.py` for feeds."""

from clients.device.feed import Item


def test_an_item_with_a_picture_has_no_tokens_yet():
    item = Item("what is it?", b"picture", "3")
    assert item.tokens is None
    assert item.grid == (0, 0, 0)
