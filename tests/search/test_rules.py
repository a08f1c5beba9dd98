"""The rules on a made-up network whose best answer can be found by trying everything."""

from dataclasses import replace
from itertools import product as combinations

import pytest

from hwq.search.rules import RULES, Score, admissible, fast, greedy, path, product

SIZES = {"a": 100, "b": 1000, "c": 5000, "d": 50}
PAIN = {"a": 0.004, "b": 0.0004, "c": 0.0002, "d": 0.002}          # accuracy lost is PAIN * (2 ** (8 - bits) - 1) / 8


def made_up(bits, key=""):
    lost = sum(PAIN[layer] * (2 ** (8 - width) - 1) / 8 for layer, width in bits.items())
    size = sum(SIZES[layer] * width for layer, width in bits.items())
    return Score(dict(bits), 0.9 - lost, 0.3 + 3 * lost, size, size, key)


class Counter:
    def __init__(self, score=made_up):
        self.trained, self.full, self.calibrated, self.score = 0, 0, 0, score

    def __call__(self, parent, candidates, how):
        self.trained += len(candidates) * (how == "brief")
        self.full += len(candidates) * (how == "full")
        self.calibrated += len(candidates) * (how == "none")
        return [self.score(bits) for bits in candidates]


START = made_up(dict.fromkeys(SIZES, 8))


def best(allowed, least):
    states = (made_up(dict(zip(SIZES, widths, strict=True))) for widths in combinations(range(least, 9), repeat=4))
    return min((s for s in states if 0.9 - s.accuracy <= allowed), key=lambda s: s.cost)


@pytest.mark.parametrize("allowed", [0.0005, 0.001, 0.003, 0.01])
@pytest.mark.parametrize("name", list(RULES))
def test_answers_are_admissible_and_near_the_best(name, allowed):
    found = RULES[name](START, Counter(), reference=0.9, allowed=allowed, least=2)
    path, last = found.accepted, found.accepted[-1]
    assert path[0] is START and 0.9 - last.accuracy <= allowed and min(last.bits.values()) >= 2
    assert all(b.size < a.size for a, b in zip(path, path[1:], strict=False))
    assert found.way[0][0] == START.bits and found.way[-1][0] == last.bits
    assert [size for _, size in found.way] == sorted((made_up(bits).size for bits, _ in found.way), reverse=True)
    assert all(score.bits in [bits for bits, _ in found.way] for score in path)
    assert last.cost <= 1.35 * best(allowed, 2).cost or name == "product"


def test_greedy_stops_where_no_layer_can_go_lower():
    path = greedy(START, Counter(), reference=0.9, allowed=0.003, least=2).accepted
    for layer, width in path[-1].bits.items():
        assert width == 2 or 0.9 - made_up({**path[-1].bits, layer: width - 1}).accuracy > 0.003


def test_fast_needs_far_fewer_trainings():
    slow, quick = Counter(), Counter()
    greedy(START, slow, reference=0.9, allowed=0.01, least=2)
    fast(START, quick, reference=0.9, allowed=0.01, least=2)
    assert quick.trained <= 3 * 4 and quick.calibrated == 4 and slow.trained > 3 * quick.trained


def test_path_asks_with_few_whole_trainings():
    for allowed in (0.0005, 0.003, 0.01):
        counter = Counter()
        found = path(START, counter, reference=0.9, allowed=allowed, least=2)
        assert counter.trained == 4 * 3 and counter.full <= 5 and counter.calibrated == 4 * 3
        assert found.accepted[-1].cost <= 1.2 * best(allowed, 2).cost


def test_path_believes_few_bits_only_when_trained():
    def evaluate(parent, candidates, how):
        scores = [made_up(bits) for bits in candidates]
        return [replace(score, cross_entropy=score.cross_entropy + 5 * (score.bits["b"] <= 3)) if how == "none" else score
                for score in scores]
    found = path(START, evaluate, reference=0.9, allowed=0.01, least=2)
    assert found == path(START, Counter(), reference=0.9, allowed=0.01, least=2) and found.accepted[-1].bits["b"] == 2


def test_path_steps_over_widths_that_noise_makes_look_bad():
    def noisy(bits):
        score = made_up(bits)
        return replace(score, cross_entropy=score.cross_entropy + 0.02 * sum(bits[layer] in (5, 7) for layer in "bc"))
    found = path(START, Counter(noisy), reference=0.9, allowed=0.003, least=2)
    assert all(bits[layer] not in (5, 7) for bits, _ in found.way[1:] for layer in "bc")
    assert found.accepted[-1].cost <= 1.2 * best(0.003, 2).cost


def test_slack_accepts_what_may_be_admissible():
    strict = path(START, Counter(), reference=0.9, allowed=0.003, least=2).accepted[-1]
    loose = path(START, Counter(lambda bits: replace(made_up(bits), slack=0.002)), reference=0.9,
                 allowed=0.003, least=2).accepted[-1]
    assert 0.897 <= strict.accuracy and 0.895 <= loose.accuracy < 0.897 and loose.cost < strict.cost
    assert loose.accuracy == path(START, Counter(), reference=0.9, allowed=0.005, least=2).accepted[-1].accuracy


def test_path_names_states_that_it_never_asked_for():
    found = path(START, Counter(), reference=0.9, allowed=0.003, least=2)
    assert len(found.way) > 2 * len(found.accepted)
    assert all(sum(a[0].values()) - sum(b[0].values()) == 1 for a, b in zip(found.way, found.way[1:], strict=False))


def test_nothing_is_admissible():
    bad = Counter(lambda bits: made_up(bits) if bits == START.bits else Score(dict(bits), 0.1, 3.0, 1.0, 1.0))
    for rule in RULES.values():
        assert rule(START, bad, reference=0.9, allowed=0.001, least=2).accepted == [START]


def test_block_rams_in_steps_do_not_stop_greedy():
    def steps(bits):
        score = made_up(bits)
        return Score(score.bits, score.accuracy, score.cross_entropy, -(-score.size // 4096), score.size)
    path = greedy(steps(START.bits), Counter(steps), reference=0.9, allowed=0.01, least=2).accepted
    assert path[-1].cost < path[0].cost / 2


def test_least_bits_are_kept():
    for rule in (greedy, fast, path, product):
        assert set(rule(START, Counter(), reference=0.9, allowed=1.0, least=4).accepted[-1].bits.values()) == {4}


def test_just_the_allowed_drop_is_admissible():
    for images in (1000, 5000, 10_000):
        for right in range(images // 2, images, images // 50):
            reference, allowed = right / images, images // 1000 / images
            assert admissible(Score({}, (right - images // 1000) / images, 0.0, 0.0, 0.0), reference, allowed)
            assert not admissible(Score({}, (right - images // 1000 - 1) / images, 0.0, 0.0, 0.0), reference, allowed)
