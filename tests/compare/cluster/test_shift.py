"""Whatever workers die of and whenever: each errand ends once, done or given up. Ray is a fake here."""

import random
from collections import Counter

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from freshkv.compare.cluster.crew import RETRIES, Crew
from freshkv.compare.cluster.errand import Done, Errand, Job, Lost
from freshkv.compare.cluster.shift import MOST_LOST, carry_out
from freshkv.core.errors import ClusterError
from tests.compare.cluster.fake_ray import DeathError, FakeRay, FakeWorker

JOB = Job(payload=b"", threads=1, matmul_precision="highest", deterministic=False, cpus=1, gpus=0)

chances = st.integers(0, 2**32).map(random.Random)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=8)  # of units: how many errands each has


def make_units(shape):
    numbers = iter(range(sum(shape)))
    return [[Errand("decode", (next(numbers),), "an errand") for _ in range(size)] for size in shape]


def number_of(errand):
    return errand.arguments[0]


def always(errand):
    return True


def work(ray, units, worker=FakeWorker, workers=3, notes=None, crew_size=None):
    """All outcomes of a crew's shift, which leaves nobody busy."""
    crew, heard = Crew(ray, worker, workers), [] if notes is None else notes
    outcomes = list(carry_out(crew, units, JOB, None, always, lambda alive, note: heard.append(note)))
    assert len(crew.members) == (crew_size or min(workers, len(units)))
    assert not any(ref.method == "decode" for member in crew.members for ref in member.actor.line)
    crew.dismiss_all()
    assert all(actor.is_killed for actor in ray.actors)
    return outcomes


@given(shapes, chances, st.floats(0, 0.3), st.integers(1, 5))
def test_each_errand_ends_once_whoever_dies(shape, randomness, rate, workers):
    units, ray = make_units(shape), FakeRay(randomness, rate)
    try:
        outcomes = work(ray, units, workers=workers)
    except ClusterError:
        assert max(Counter(ray.deaths).values()) == RETRIES + 1
        return
    assert sorted(number_of(outcome.errand) for outcome in outcomes) == list(range(sum(shape)))
    deaths = Counter(ray.deaths)
    for outcome in outcomes:
        number = number_of(outcome.errand)
        if isinstance(outcome, Lost):
            assert outcome.attempts == deaths[number] == RETRIES + 1
        else:
            assert outcome.answer.value == number
            assert deaths[number] <= RETRIES
            assert 1 <= outcome.together <= workers
            assert 1 <= outcome.alive <= workers


@given(shapes, chances, st.sets(st.integers(0, 39), max_size=MOST_LOST - 1))
def test_only_what_kills_each_worker_is_given_up(shape, randomness, deadly):
    ray = FakeRay(randomness, is_deadly=deadly.__contains__)
    outcomes = work(ray, make_units(shape))
    lost = {number_of(outcome.errand) for outcome in outcomes if isinstance(outcome, Lost)}
    assert lost == deadly & set(range(sum(shape)))


@given(shapes, chances)
def test_a_unit_is_done_in_order_by_one_worker(shape, randomness):
    ray = FakeRay(randomness)
    units = make_units(shape)
    order = [number_of(outcome.errand) for outcome in work(ray, units)]
    for unit in units:
        numbers = list(map(number_of, unit))
        assert [number for number in order if number in numbers] == numbers


@given(shapes, chances, st.floats(0, 0.2), st.sets(st.integers(0, 39)))
def test_what_is_not_wanted_any_more_is_left_out(shape, randomness, rate, unwanted):
    """Once an errand has failed, as an entry does, none of those like it is begun."""
    ray, begun_late = FakeRay(randomness, rate), []
    units = make_units(shape)
    crew, gone, allowed, outcomes = Crew(ray, FakeWorker, 3), set(), set(), []
    try:
        for outcome in carry_out(crew, units, JOB, None, lambda e: number_of(e) not in gone, lambda *heard: None):
            outcomes.append(number_of(outcome.errand))
            underway = {ref.arguments[0] for a in ray.actors for ref in a.line if ref.method == "decode"}
            begun_late += [number for number in underway & gone if number not in allowed]
            if not gone:
                gone.update(unwanted)
                allowed.update(underway)
    except ClusterError:
        return
    assert not begun_late
    assert set(range(sum(shape))) - unwanted <= set(outcomes)
    assert len(outcomes) == len(set(outcomes))


@given(chances)
def test_several_in_a_row_that_nobody_survives_end_the_shift(randomness):
    ray = FakeRay(randomness, is_deadly=lambda number: True)
    with pytest.raises(ClusterError, match="3 works in a row ended each of the 4 workers"):
        work(ray, make_units([4, 4, 4]))
    assert len(set(ray.deaths)) <= MOST_LOST + 2  # what others had in hand
    assert all(count <= RETRIES + 1 for count in Counter(ray.deaths).values())


@given(shapes, chances, st.integers(0, 10))
def test_who_leaves_early_leaves_nobody_at_work(shape, randomness, count):
    ray = FakeRay(randomness)
    crew = Crew(ray, FakeWorker, 3)
    outcomes = carry_out(crew, make_units(shape), JOB, None, always, lambda *heard: None)
    for _ in range(count):
        next(outcomes, None)
    outcomes.close()
    at_work = [actor for actor in ray.actors if any(ref.method == "decode" for ref in actor.line)]
    assert all(actor.is_killed for actor in at_work)
    assert not {member.actor for member in crew.members} & set(at_work)


def test_nobody_is_hired_beyond_the_room():
    ray = FakeRay(random.Random(0), places=2)
    assert len(Crew(ray, FakeWorker, None).hire(JOB, 10)) == 2
    assert len(Crew(ray, FakeWorker, 5).hire(JOB, 10)) == 5  # as told: the cluster may grow
    with pytest.raises(ClusterError, match="no room for a worker, which needs 1 CPU: a node has at most 0 CPUs"):
        Crew(FakeRay(random.Random(0), places=0), FakeWorker, None).hire(JOB, 1)


def test_workers_of_other_needs_are_other_workers():
    ray = FakeRay(random.Random(0))
    crew = Crew(ray, FakeWorker, None)
    first = crew.hire(JOB, 2)
    assert crew.hire(JOB, 2) == first
    assert not set(crew.hire(evolve(JOB, cpus=2), 2)) & set(first)
    assert [actor.is_killed for actor in ray.actors] == [True, True, False, False]


def limited(allowed):
    """A class of workers of which only so many ever get ready."""
    count = iter(range(1000))

    class Limited(FakeWorker):
        def ready(self, job, expected):
            if next(count) >= allowed:
                raise DeathError
            return super().ready(job, expected)

    return Limited


def test_a_worker_that_cannot_be_started_is_told_of():
    notes = []
    outcomes = work(
        FakeRay(random.Random(1)), make_units([3, 3]), worker=limited(1), workers=2, notes=notes, crew_size=1
    )
    assert sum(isinstance(outcome, Done) for outcome in outcomes) == 6
    assert "A worker cannot be started (ActorUnavailableError: it died); the others go on." in notes


def test_if_no_worker_can_be_started_that_is_an_error():
    with pytest.raises(
        ClusterError, match="No worker gets ready; the last one ended with ActorUnavailableError: it died"
    ):
        work(FakeRay(random.Random(1)), make_units([3, 3]), worker=limited(0))
