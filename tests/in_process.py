"""Studies whose trials run in the process of the test, one after the other."""

from __future__ import annotations

from gradnas.cli import main, study
from gradnas.engines import Ended, Engine


class InProcess(Engine):
    """Does each job as it is submitted; some never end, as if the study were killed."""

    def __init__(self, most=None, lose=()):
        self.done = []
        self.ended = []
        self.most = most
        self.lose = dict.fromkeys(lose, 0)

    def submit(self, job):
        if self.most is not None and len(self.done) >= self.most:
            raise KeyboardInterrupt
        assert job.command[1:5] == ("-m", "gradnas", "study", "trial")
        code = -9
        if job.name in self.lose:
            self.lose[job.name] += 1
        else:
            code = main(list(job.command[3:]))
            self.done.append(job.name)
        self.ended.append(Ended(job.name, code))

    def wait(self, seconds):
        ended = self.ended
        self.ended = []
        return ended

    def cancel(self):
        pass


def carried_out(monkeypatch, arguments, engine=None):
    """The exit code of `gradnas study ARGUMENTS`, and the trials that were done for it."""
    engine = engine or InProcess()
    monkeypatch.setattr(study, "engine_of", lambda *_: engine)
    return main(["study", *arguments]), engine.done
