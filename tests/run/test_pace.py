"""The time that is left of a run: of what was measured, and of nothing else."""

import math
from fractions import Fraction

import pytest

from jaxseg.run.pace import Rhythm, Times


@pytest.mark.parametrize("total", [1, 6, 7, 12])
@pytest.mark.parametrize(("evaluations", "checkpoints"), [(3, 2), (2, 2), (4, 6), (3, 0), (0, 2), (5, 1)])
def test_what_is_ahead_is_what_the_loop_does(total: int, evaluations: int, checkpoints: int) -> None:
    """As `run.loop.what_is_due` says: the last step has an evaluation, and an evaluation saves."""
    rhythm = Rhythm(evaluations, checkpoints)
    evaluated = {s for s in range(1, total + 1) if evaluations and (s % evaluations == 0 or s == total)}
    saved = {s for s in range(1, total + 1) if checkpoints and s % checkpoints == 0} - evaluated
    for step in range(total + 1):
        assert rhythm.evaluations_after(step, total) == sum(s > step for s in evaluated), step
        assert rhythm.checkpoints_after(step, total) == sum(s > step for s in saved), step


def test_the_forecast_of_a_whole_run_is_the_time_it_takes() -> None:
    """A run of even steps and pauses, by hand: from the first pause of each kind on every forecast is exact."""
    step_time, evaluation, checkpoint = Fraction(1, 2), Fraction(10), Fraction(3)
    total, rhythm = 12, Rhythm(evaluations=4, checkpoints=3)
    evaluated, saved = {4, 8, 12}, {3, 6, 9}
    whole = [step_time + evaluation * (s in evaluated) + checkpoint * (s in saved) for s in range(1, total + 1)]
    times, now = Times(rhythm, total), Fraction(0)
    assert math.isnan(times.left(0, now).seconds) and times.words(0, now) == "time left not known yet"
    for step in range(1, total + 1):
        now += step_time
        times.step(step_time)
        left = times.left(step, now)
        known = step_time * (total - step)
        known += evaluation * sum(s > step for s in evaluated) if step > 4 else 0
        known += checkpoint * sum(s > step for s in saved) if step > 3 else 0
        assert left.seconds == known
        assert left.evaluations == (3 - (step == 4) if step <= 4 else 0)
        assert left.checkpoints == (3 - (step == 3) if step <= 3 else 0)
        if step > 4 and step not in evaluated | saved:
            assert left.seconds == sum(whole[step:])
        if step in evaluated | saved:
            times.pause(now)
            if step in evaluated:
                times.evaluates()
            now += 2
            if step == 8:  # 8 of its 10 seconds are ahead
                assert times.left(step, now).seconds == sum(whole[step:]) + 8
            now += (evaluation if step in evaluated else checkpoint) - 2
            times.go_on(now)
    assert times.left(total, now) == (0, 0, 0)


def test_the_first_pause_counts_only_while_there_is_no_other() -> None:
    times = Times(Rhythm(evaluations=1), 10)
    times.step(0.0)
    for begin, seconds, expected in ((0.0, 60.0, 60.0), (100.0, 10.0, 10.0), (200.0, 20.0, 15.0)):
        times.pause(begin)
        times.evaluates()
        times.go_on(begin + seconds)
        assert times.left(9, 300.0).seconds == expected


def test_words() -> None:
    times = Times(Rhythm(evaluations=100, checkpoints=40, may_end_early=True), 200)
    times.step(2.0)
    assert times.words(100, 0.0) == "at most 3 min 20 s left, plus 1 evaluation and 2 checkpoints"
    assert times.words(200, 0.0) == "about 0 min 00 s left"
    assert Times(Rhythm(), 0).words(0, 0.0) == "about 0 min 00 s left"


def test_a_resumed_run_has_only_what_is_ahead() -> None:
    times = Times(Rhythm(evaluations=50), 200)
    times.step(1.0)
    assert times.words(151, 0.0) == "about 0 min 49 s left, plus 1 evaluation"
