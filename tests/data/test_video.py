"""Frames of a video: which are kept, at what rate and size, and what is refused."""

import io
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdc_flower.data import video as reading
from cdc_flower.data.pictures import PackError
from cdc_flower.data.video import Sampling, read_clip, spread
from tests import videos


def greys(frames):
    """The mean grey of each encoded frame."""
    return [float(np.asarray(Image.open(io.BytesIO(data)).convert("L")).mean()) for data in frames]


def is_of(frames, wanted):
    """That these are the wanted frames of a video of `tests.videos`, in this order."""
    assert greys(frames) == pytest.approx([videos.grey(i) for i in wanted], abs=videos.STEP / 3)


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [
        (5, 16, [0, 1, 2, 3, 4]),
        (1, 16, [0]),
        (9, 3, [0, 4, 8]),
        (100, 5, [0, 25, 50, 74, 99]),
        (7, 1, [3]),
        (7, 2, [0, 6]),
    ],
)
def test_the_first_and_the_last_frame_are_kept_and_others_evenly_between(count, most, kept):
    assert spread(count, most) == kept


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.mp4", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
        ("a.mkv", "libx264"),
        ("a.ts", "mpeg2video"),
    ],
)
@pytest.mark.parametrize("key_every", [1, 3, 100])
def test_the_wanted_frames_are_found_wherever_the_key_frames_are(name, codec, key_every, tmp_path):
    path = videos.video(tmp_path / name, 17, codec=codec, key_every=key_every)
    frames, fps = read_clip(path, Sampling(frames=5))
    is_of(frames, [0, 4, 8, 12, 16])
    assert fps == pytest.approx(2.5), "of the frames that are kept"


REORDERED = [
    ("a.flv", "libx264"),
    ("a.mpg", "mpeg4"),
    ("a.mpg", "mpeg2video"),
    ("a.mpg", "libx264"),
    ("a.wmv", "libx264"),
    ("a.ts", "libx264"),
    ("a.avi", "libx264"),
    ("a.avi", "mpeg4"),
    ("a.mkv", "libx264"),
    ("a.mp4", "libx264"),
]
"""Formats and codecs of frames that are not stored in the order in which they are shown."""


@pytest.mark.parametrize(("name", "codec"), REORDERED)
@pytest.mark.parametrize(("key_every", "b_frames"), [(12, 0), (5, 2), (12, 2), (100, 2)])
def test_frames_are_the_wanted_ones_whatever_the_order_that_they_are_stored_in(
    name, codec, key_every, b_frames, tmp_path
):
    path = videos.video(tmp_path / name, 50, codec=codec, key_every=key_every, b_frames=b_frames)
    frames, fps = read_clip(path, Sampling(frames=8))
    is_of(frames, [0, 7, 14, 21, 28, 35, 42, 49])
    assert fps == pytest.approx(7 / 4.9)


@pytest.mark.parametrize("count", [4, 5, 6, 7, 8])
def test_without_times_of_showing_frames_are_counted_though_none_is_seen_out_of_order(count, tmp_path):
    path = videos.video(tmp_path / "a.avi", count, codec="libx264", key_every=100, b_frames=2)
    is_of(read_clip(path, Sampling(frames=1)).frames, [(count - 1) // 2])


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.flv", "libx264", 2),  # nothing comes
        ("a.wmv", "libx264", 0),  # frames without a time come
        ("a.ts", "libx264", 2),  # later ones come
        ("a.avi", "libx264", 2),  # they come out of order
        ("a.mpg", "libx264", 0),  # most packets have no time
    ],
)
def test_jumps_that_lead_elsewhere_and_times_that_are_none_are_noticed(
    name, codec, b_frames, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "JUMPS", (*reading.JUMPS, "flv", "asf", "mpegts", "mpeg"))
    monkeypatch.setattr(reading, "REORDERED", ())
    path = videos.video(tmp_path / name, 50, codec=codec, key_every=12, b_frames=b_frames)
    is_of(read_clip(path, Sampling(frames=8)).frames, [0, 7, 14, 21, 28, 35, 42, 49])


@pytest.mark.parametrize("packets", [3, 5, 9, 100])
def test_where_packets_are_more_or_fewer_than_frames_the_frames_are_counted(packets, tmp_path):
    path = videos.video(tmp_path / "a.ts", 5, codec="mpeg2video")
    is_of(reading._by_number(reading.pyav(), path, packets, Sampling(frames=3)), [0, 2, 4])


def test_a_short_video_keeps_every_frame_and_its_own_rate(tmp_path):
    frames, fps = read_clip(videos.video(tmp_path / "a.mp4", 3), Sampling())
    is_of(frames, [0, 1, 2])
    assert fps == pytest.approx(10)
    frames, fps = read_clip(videos.video(tmp_path / "b.mp4", 1), Sampling())
    is_of(frames, [0])
    assert fps == pytest.approx(10)
    frames, fps = read_clip(tmp_path / "a.mp4", Sampling(frames=1))
    is_of(frames, [1])
    assert fps == pytest.approx(10)


def test_large_frames_are_made_smaller_and_small_ones_are_not_made_larger(tmp_path):
    path = videos.video(tmp_path / "a.mp4", 2, sizes=[(64, 32)])
    for longest, size in ((32, (32, 16)), (64, (64, 32)), (480, (64, 32))):
        frames, _ = read_clip(path, Sampling(longest_side=longest))
        assert {Image.open(io.BytesIO(data)).size for data in frames} == {size}


def test_a_video_that_was_taken_sideways_is_turned(tmp_path):
    path = videos.video(tmp_path / "a.mp4", 2, sizes=[(64, 32)], rotation=90)
    frames, _ = read_clip(path, Sampling())
    assert {Image.open(io.BytesIO(data)).size for data in frames} == {(32, 64)}


@pytest.fixture
def decoded(monkeypatch):
    """The times of all frames that are decoded from now on."""
    av, times = reading.pyav(), []
    opened = av.open

    class Counting:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, stream):
            for frame in self.container.decode(stream):
                times.append(frame.pts)
                yield frame

        def __enter__(self):
            return Counting(self.container.__enter__())

        def __exit__(self, *error):
            return self.container.__exit__(*error)

    monkeypatch.setattr(av, "open", lambda *a, **k: Counting(opened(*a, **k)))
    return times


def test_of_a_long_video_few_frames_are_decoded(tmp_path, decoded):
    path = videos.long(tmp_path / "a.avi", 3_000)
    frames, fps = read_clip(path, Sampling(frames=4))
    assert (len(frames), decoded) == (4, [0, 1000, 1999, 2999])
    assert fps == pytest.approx(3 / 299.9)


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.avi", "libx264", 0),
        ("a.avi", "mpeg2video", 0),
        ("a.avi", "mpeg4", 2),
        ("a.mp4", "libx264", 2),
        ("a.mkv", "libx264", 2),
    ],
)
def test_where_an_index_leads_to_key_frames_others_are_passed_over(name, codec, b_frames, tmp_path, decoded):
    path = videos.video(tmp_path / name, 200, codec=codec, key_every=10, b_frames=b_frames)
    is_of(read_clip(path, Sampling(frames=3)).frames, [0, 100, 199])
    assert len(decoded) < 50


@pytest.mark.slow
def test_a_video_of_100_000_frames_is_read_in_seconds(tmp_path):
    path = videos.long(tmp_path / "a.avi", 100_000)
    begun = time.process_time()
    frames, _ = read_clip(path, Sampling())
    assert len(frames) == 16
    assert time.process_time() - begun < 60


def junk(path):
    path.write_bytes(b"no video" * 100)
    return path


def cut(path):
    whole = videos.video(path, 5).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def stream_begins(path):
    sound = bytes([0xAF, 1, 0, 0])
    size = len(sound).to_bytes(3, "big")
    tag = bytes([8]) + size + bytes(7) + sound + (11 + len(sound)).to_bytes(4, "big")
    made = videos.video(path.with_suffix(".flv"), 400, codec="flv", sizes=[(64, 64)])
    made.write_bytes(made.read_bytes() + tag)
    return made


def playlist(path):
    videos.video(path.parent / "other.mp4")
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (junk, "not a video that can be decoded: Invalid data found"),
        (cut, "not a video that can be decoded"),
        (stream_begins, "not a video that can be decoded: a stream begins in the midst of it"),
        (playlist, "not a video that can be decoded"),
        (lambda path: path, "not a video that can be decoded: No such file"),
        (videos.sound, "no video in it"),
        (videos.without_frames, "no frames in it"),
    ],
    ids=["junk", "cut", "stream", "playlist", "absent", "sound", "empty"],
)
def test_what_is_no_video_is_refused(make, said, tmp_path):
    with pytest.raises(PackError, match=said) as refused:
        read_clip(make(tmp_path / "a.mp4"), Sampling())
    assert "\n" not in str(refused.value)


def test_a_video_whose_size_changes_is_refused(tmp_path):
    path = videos.video(tmp_path / "a.mkv", 6, sizes=[(32, 32), (64, 48)], codec="mjpeg")
    with pytest.raises(PackError, match=r"its size changes: 32x32 pixels, then 64x48 at 0.30 s; allowed"):
        read_clip(path, Sampling())


def test_too_many_frames_and_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = videos.video(tmp_path / "a.mp4", 6)
    monkeypatch.setattr(reading, "MAX_FRAMES", 5)
    with pytest.raises(PackError, match="more than 5 frames; allowed: up to 5"):
        read_clip(path, Sampling())
    monkeypatch.undo()
    monkeypatch.setattr(reading, "MAX_PIXELS", 1000)
    with pytest.raises(PackError, match="not a video that can be decoded"):
        read_clip(path, Sampling())


def test_without_pyav_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(PackError, match=r"PyAV, which is not installed; allowed: pip install"):
        read_clip(tmp_path / "a.mp4", Sampling())


def test_only_who_reads_a_video_imports_pyav():
    root = Path(__file__).parents[2]
    every = [
        p for of in ("cdc_flower", "strategies", "clients", "experiments") for p in (root / of).rglob("*.py")
    ]
    found = [p.name for p in every if re.search(r"^\s*(import av|from av)\b", p.read_text(), re.MULTILINE)]
    assert found == ["video.py"]
    assert "    try:\n        import av\n" in Path(reading.__file__).read_text(), (
        "and not before it is asked to"
    )
