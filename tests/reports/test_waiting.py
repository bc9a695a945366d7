"""What is told of the time that a run has waited for its data."""

import json
import time

import pytest

from gradnas import runs
from gradnas.reports.folder import Records
from gradnas.reports.waiting import share_words, waited, waiting_sentence
from gradnas.tasks.waiting import Waiting


def line(epoch, seconds, waiting=None):
    record = {"epoch": epoch, "seconds": seconds}
    return record if waiting is None else {**record, "waiting_seconds": waiting}


def test_shares_are_of_the_epochs_that_tell(tmp_path):
    timings = Records(tmp_path, (line(0, 100.0), line(1, 10.0, 1.0), line(2, 30.0, 3.0)))
    assert waited(timings) == (4.0, 40.0)
    assert share_words([(4.0, 40.0)]) == "10% of the time"
    assert share_words([(4.0, 40.0), (0.0, 60.0)]) == "4% of the time"
    assert share_words([(0.001, 40.0)]) == "less than 1% of the time"
    assert share_words([]) == ""
    assert waited(Records(tmp_path, (line(0, 100.0),))) is None


def test_the_sentence_at_the_end(tmp_path):
    file = tmp_path / runs.TIMINGS
    assert waiting_sentence(tmp_path) is None
    file.write_text("".join(json.dumps(line(n, 10.0, 2.5)) + "\n" for n in range(2)))
    assert waiting_sentence(tmp_path) == "waiting for data: 25% of the time (20 s of epochs)"
    file.write_text("no JSON\n")
    assert waiting_sentence(tmp_path) is None


def test_only_what_a_batch_takes_to_come_is_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def batches():
        for _ in range(3):
            now[0] += 1.0  # made
            yield None
        raise ValueError("no more")

    waiting = Waiting()
    with pytest.raises(ValueError, match="no more"):
        for _ in waiting.on(batches()):
            now[0] += 100.0  # worked on
    assert waiting.seconds == 3.0
    with waiting:
        now[0] += 0.5
    assert waiting.seconds == 3.5
