"""An agent begins with all that it needs, or in one line says what is wrong."""

import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from cdc_flower.config import ConfigError
from clients.device import start
from clients.device.database import FILE, Damaged


def test_a_second_agent_is_refused(begin, monkeypatch):
    agent, said = begin(), []
    monkeypatch.setattr(start, "TRIES", (2, 0.01))

    def second():
        with pytest.raises(ConfigError) as caught, start.opened(agent.bundle.folder):
            pass
        said.append(str(caught.value))

    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert "is in use by process" in said[0]


def test_a_feed_needs_the_longest_question_that_the_cloud_takes(begin):
    with pytest.raises(ConfigError, match="'longest-question' = 0 with feed 'folder'"):
        begin(feed="folder")


def test_a_feed_has_no_instruction_of_each_row(begin, student, monkeypatch):
    data = replace(student.config.data, task="by-row")
    bare = replace(student, shared=replace(student.shared, card={}), longest=9)
    monkeypatch.setattr(start.Student, "of", lambda _: replace(bare, config=replace(bare.config, data=data)))
    with pytest.raises(ConfigError, match="'by-row' has an instruction for each row"):
        begin(feed="folder", longest_question=9)


def test_the_stream_knows_it(begin):
    agent = begin()
    assert agent.student.longest > 3
    assert agent.student.padded > agent.student.longest


def test_the_folder_of_the_feed_must_be_there(begin):
    with pytest.raises(ConfigError, match="feed-path"):
        begin(feed="folder", feed_path="nowhere/below", longest_question=9)


def test_a_damaged_database_is_one_line(begin, tmp_path):
    state = tmp_path / "bundle" / "state"
    state.mkdir()
    (state / FILE).write_bytes(b"x" * 5000)
    with pytest.raises(Damaged, match="is damaged"):
        begin()


@pytest.mark.slow
def test_an_agent_holds_no_library_that_it_does_not_use():
    code = (
        "import sys, clients.device.start\n"
        "print([m for m in ('pandas', 'pyarrow', 'ray', 'matplotlib', 'datasets') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
