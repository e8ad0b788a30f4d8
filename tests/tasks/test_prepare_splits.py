"""Whole groups, the right shares, and the same place tomorrow."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from tasks.config.prepare import PrepareConfig
from tasks.prepare.labels import SCORED, TRAIN_ONLY, UNLABELLED
from tasks.prepare.splits import DROPPED, LEAKED, TEST, TRAIN, VAL, Candidates, assign

STRATIFIED = PrepareConfig()
OFFICIAL = PrepareConfig(split="official")


def images(groups, strata=None, usages=None, use=None, sources=None, seed: int = 0) -> Candidates:
    groups = np.asarray(groups, np.int64)
    zeros = np.zeros(len(groups), np.int64)
    return Candidates(
        groups=groups,
        strata=zeros if strata is None else np.asarray(strata, np.int64),
        hashes=np.random.default_rng(seed).integers(0, 2**63, len(groups)).astype(np.uint64),
        use=np.full(len(groups), SCORED, np.uint8) if use is None else np.asarray(use, np.uint8),
        usages=zeros - 1 if usages is None else np.asarray(usages, np.int64),
        sources=zeros if sources is None else np.asarray(sources, np.int64),
    )


@settings(max_examples=60, deadline=None)
@given(some.data())
def test_groups_stay_whole_and_every_labelled_image_has_one_split(data):
    count = data.draw(some.integers(1, 80))
    groups = np.array(data.draw(some.lists(some.integers(0, 25), min_size=count, max_size=count)))
    strata = data.draw(some.lists(some.integers(0, 3), min_size=count, max_size=count))
    use = np.array(
        data.draw(
            some.lists(some.sampled_from([SCORED, TRAIN_ONLY, UNLABELLED]), min_size=count, max_size=count)
        )
    )
    usages = data.draw(some.lists(some.integers(-1, 2), min_size=count, max_size=count))
    config = data.draw(some.sampled_from([STRATIFIED, OFFICIAL]))
    splits = assign(images(groups, strata, usages, use), config)
    placed = splits >= 0
    for group in np.unique(groups):
        assert len(set(splits[placed & (groups == group)].tolist())) <= 1
    assert (splits[use == UNLABELLED] == DROPPED).all()
    assert np.isin(splits[use == TRAIN_ONLY], [TRAIN, LEAKED]).all()
    if config is STRATIFIED:
        assert placed[use == SCORED].all()


@settings(max_examples=20, deadline=None)
@given(some.integers(1, 6), some.integers(0, 2**32))
def test_shares_hold_in_a_class_up_to_chance(largest: int, seed: int):
    sizes = np.random.default_rng(seed).integers(1, largest + 1, 2000)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    splits = assign(images(groups, seed=seed), STRATIFIED)
    for split, share in ((TRAIN, 0.70), (VAL, 0.15), (TEST, 0.15)):
        chance = np.sqrt(share * (1 - share) * np.square(sizes).sum())
        assert abs((splits == split).sum() - share * len(groups)) <= 5 * chance


def test_three_groups_of_a_class_reach_all_three_splits():
    splits = assign(images([0] * 30 + [1] * 2 + [2]), STRATIFIED)
    assert set(splits.tolist()) == {TRAIN, VAL, TEST}


def joined(today: Candidates, count: int, groups: np.ndarray) -> Candidates:
    """The same images and `count` new ones behind them, in these groups."""
    more = images(np.zeros(count, int), seed=99)
    columns = {name: np.concatenate([column, vars(more)[name]]) for name, column in vars(today).items()}
    return Candidates(**columns | {"groups": groups})


def test_new_images_move_no_old_one_whether_alone_or_in_its_group():
    today = images(np.arange(2000))
    before = assign(today, STRATIFIED)
    alone = joined(today, 500, np.arange(2500))
    in_groups = joined(today, 500, np.concatenate([np.arange(2000), np.arange(500)]))
    assert (assign(alone, STRATIFIED)[:2000] == before).all()
    after = assign(in_groups, STRATIFIED)
    assert (after[:2000] == before).all()
    assert (after[2000:] == before[:500]).all()
    assert (assign(today, PrepareConfig(seed=1)) != before).mean() > 0.3


def test_an_image_that_ties_two_groups_together_moves_the_later_one_alone():
    today = images(np.arange(200))
    before = assign(today, STRATIFIED)
    tied = np.concatenate([np.arange(200), [0]])
    tied[150:160] = np.arange(10)
    after = assign(joined(today, 1, tied), STRATIFIED)
    assert (np.delete(after[:200], np.s_[150:160]) == np.delete(before, np.s_[150:160])).all()
    assert (after[150:160] == before[:10]).all()


def test_an_image_has_one_split_whatever_the_labels():
    count = 500
    plain = assign(images(np.arange(count)), STRATIFIED)
    other = assign(images(np.arange(count), strata=np.arange(count) % 3), STRATIFIED)
    assert (plain == other).all()


def test_the_official_split_keeps_test_whole_and_drops_its_twins_from_training():
    #                 twin in test | alone | twin in val | val and test
    usages = [TRAIN, TEST, TRAIN, TRAIN, VAL, VAL, TEST]
    splits = assign(images([0, 0, 1, 2, 2, 3, 3], usages=usages), OFFICIAL)
    assert splits.tolist() == [LEAKED, TEST, TRAIN, LEAKED, VAL, LEAKED, TEST]


def test_an_official_source_without_val_gets_one_from_its_training_images():
    usages = [TRAIN] * 800 + [TEST] * 200
    splits = assign(images(np.arange(1000), usages=usages), OFFICIAL)
    assert (splits[800:] == TEST).all()
    assert set(splits[:800].tolist()) == {TRAIN, VAL}
    assert abs((splits == VAL).sum() - 800 * 0.15 / 0.85) <= 40


def test_custom_images_beside_an_official_source_are_stratified():
    usages = [TRAIN] * 300 + [-1] * 1000
    splits = assign(images(np.arange(1300), usages=usages, sources=[0] * 300 + [1] * 1000), OFFICIAL)
    for split, count in ((TRAIN, 700), (VAL, 150), (TEST, 150)):
        assert abs(int((splits[300:] == split).sum()) - count) <= 50
