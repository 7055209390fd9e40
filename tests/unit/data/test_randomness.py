"""Random numbers as a function of their place in the run."""

from itertools import product

import numpy as np

from braidrec.data.randomness import generator_for, seed_for

PLACES = [
    (seed, purpose, position)
    for seed, purpose in product((0, 1, 2**31), ("negatives", "epoch order"))
    for position in [(epoch, step, rank) for epoch in range(5) for step in range(5) for rank in range(3)]
]


def test_one_place_has_one_stream() -> None:
    for seed, purpose, position in PLACES[::40]:
        first, second = (generator_for(seed, purpose, *position).random(5) for _ in range(2))
        np.testing.assert_array_equal(first, second)
        assert seed_for(seed, purpose, *position) == seed_for(seed, purpose, *position)


def test_every_place_has_its_own_stream() -> None:
    draws = {int(generator_for(*place[:2], *place[2]).integers(0, 2**63)) for place in PLACES}
    assert len(draws) == len(PLACES)


def test_seeds_fit_31_bits_and_differ() -> None:
    seeds = [seed_for(seed, purpose, *position) for seed, purpose, position in PLACES]
    assert min(seeds) >= 0 and max(seeds) < 2**31 - 1
    # Of 450 seeds among 2³¹, two agree with probability 5e-5.
    assert len(set(seeds)) == len(seeds)
    # 450 uniform draws: the mean lies within four standard errors (0.0136 each) of one half.
    assert abs(np.mean(seeds) / 2**31 - 0.5) < 4 * 0.0136
