"""One label for each distinct image, and why an image has none."""

import numpy as np
import pytest

from tasks.classes import CLASSES, EMOTIONS, emotion_of
from tasks.prepare import PrepareConfig
from tasks.prepare.ferplus import OTHERS, VOTES
from tasks.prepare.labels import (
    DISPUTED,
    REASONS,
    SCORED,
    TRAIN_ONLY,
    UNLABELLED,
    UNSAID,
    Labels,
    by_emotion,
    disputed,
    resolve,
    with_posted,
)

HARD, SOFT = "ferplus", "ferplus_votes"


def votes(**counts: int) -> list[int]:
    """A row of votes."""
    return [counts.get(name, 0) for name in VOTES]


def resolved(
    *rows: list[int], copies: list[int] | None = None, label_set: str = HARD, **settings: float
) -> Labels:
    config = PrepareConfig.model_validate({"label_set": label_set, **settings})
    numbers = np.arange(len(rows)) if copies is None else np.array(copies)
    return resolve(np.array(rows, np.uint8), numbers, config)


def classes_of(labels: Labels) -> list[str]:
    return [CLASSES[label] for label in labels.labels]


def reasons_of(labels: Labels) -> list[str]:
    return [REASONS[reason] for reason in labels.reasons]


def test_each_image_has_the_class_with_most_votes_and_a_target_that_says_the_same() -> None:
    rows = [votes(**{name: 6, CLASSES[place - 1]: 4}) for place, name in enumerate(CLASSES)]
    labels = resolved(*rows)
    assert classes_of(labels) == list(CLASSES)
    assert (labels.votes == np.eye(5, dtype=np.float32)).all()
    assert labels.use.tolist() == [SCORED] * 5 and reasons_of(labels) == [""] * 5
    assert (labels.labels.dtype, labels.votes.dtype, labels.use.dtype) == (np.uint8, np.float32, np.uint8)


def test_a_crowds_label_needs_more_than_its_share_of_all_votes_others_included() -> None:
    rows = [votes(sad=5, happy=4, NF=1), votes(sad=6, happy=3, NF=1), votes(sad=6, NF=5)]
    assert resolved(*rows).use.tolist() == [UNLABELLED, SCORED, SCORED]
    assert reasons_of(resolved(*rows)) == ["no majority", "", ""]
    assert resolved(*rows, ferplus_min_share=0.45).use.tolist() == [SCORED] * 3
    assert resolved(*rows, ferplus_min_share=0.6).use.tolist() == [UNLABELLED] * 3


def test_the_original_labels_need_no_majority_but_more_votes_than_any_other() -> None:
    labels = resolved(votes(sad=2, happy=1, neutral=1), votes(sad=1, happy=1), votes(), label_set="fer2013")
    assert labels.use.tolist() == [SCORED, UNLABELLED, UNLABELLED]
    assert reasons_of(labels) == ["", "tie", "tie"]


def test_two_classes_with_equal_votes_are_a_tie_whatever_is_behind_them() -> None:
    labels = resolved(votes(neutral=5, fatigue=5), votes(neutral=5, happy=5, sad=4), ferplus_min_share=0)
    assert labels.use.tolist() == [UNLABELLED, UNLABELLED]
    assert reasons_of(labels) == ["tie", "tie"]


@pytest.mark.parametrize("other", OTHERS)
def test_an_image_that_most_call_no_face_or_another_emotion_is_dropped_under_that_name(other: str) -> None:
    rows = [votes(**{other: 8, "neutral": 2}), votes(**{other: 4, "sad": 3, "happy": 3})]
    assert resolved(*rows).use.tolist() == [UNLABELLED, UNLABELLED]
    assert reasons_of(resolved(*rows)) == [other, other]


def test_a_tie_below_a_vote_for_something_else_is_told_as_that() -> None:
    assert reasons_of(resolved(votes(NF=6, sad=2, happy=2))) == ["NF"]
    # of equals the class comes first, so that the tie of the two classes is what is told
    assert reasons_of(resolved(votes(NF=4, sad=4, happy=4))) == ["tie"]


def test_votes_as_soft_targets_are_shares_among_our_classes() -> None:
    labels = resolved(votes(stress=6, sad=2, NF=2), votes(happy=10), label_set=SOFT)
    assert np.allclose(labels.votes, [[0, 0.75, 0.25, 0, 0], [0, 0, 0, 1, 0]])
    assert labels.votes.dtype == np.float32
    assert np.allclose(resolved(votes(stress=6, sad=2, NF=2)).votes, [[0, 1, 0, 0, 0]])


def test_without_a_majority_an_image_may_be_trained_on_where_most_votes_are_for_our_classes() -> None:
    rows = [votes(sad=4, happy=3, NF=3), votes(sad=5, happy=5), votes(sad=3, happy=2, NF=5), votes(NF=9)]
    soft = resolved(*rows, label_set=SOFT)
    assert soft.use.tolist() == [TRAIN_ONLY, TRAIN_ONLY, UNLABELLED, UNLABELLED]
    assert np.allclose(soft.votes[:2, 2:4], [[4 / 7, 3 / 7], [0.5, 0.5]])
    assert resolved(*rows).use.tolist() == [UNLABELLED] * 4
    for label_set in (HARD, SOFT):
        told = reasons_of(resolved(*rows, label_set=label_set))
        assert told == ["no majority", "tie", "NF", "NF"]


def test_copies_share_the_sum_of_their_votes_and_stand_where_they_stood() -> None:
    rows = [votes(happy=1), votes(sad=1), votes(neutral=1), votes(sad=1)]
    labels = resolved(*rows, copies=[1, 0, 2, 1], label_set="fer2013")
    assert labels.use.tolist() == [UNLABELLED, SCORED, SCORED, UNLABELLED]
    assert reasons_of(labels) == ["tie", "", "", "tie"]
    assert [classes_of(labels)[place] for place in (1, 2)] == ["sad", "neutral"]
    assert labels.conflicting.tolist() == [True, False, False, True]
    settled = resolved(*rows, votes(happy=1), copies=[1, 0, 2, 1, 1], label_set="fer2013")
    assert [classes_of(settled)[place] for place in (0, 3, 4)] == ["happy"] * 3
    assert settled.use.tolist() == [SCORED] * 5
    assert settled.conflicting.tolist() == [True, False, False, True, True]
    assert (settled.votes[[0, 3, 4]] == settled.votes[0]).all()


@pytest.mark.parametrize("pair", [("neutral", "NF"), ("stress", "sad"), ("happy", "fatigue")])
def test_copies_conflict_where_their_first_choices_differ_and_only_there(pair: tuple[str, str]) -> None:
    one, other = pair
    rows = [votes(**{one: 6, other: 4}), votes(**{one: 10}), votes(**{one: 9}), votes(**{other: 9})]
    assert resolved(*rows, copies=[0, 0, 1, 1]).conflicting.tolist() == [False, False, True, True]


def test_more_votes_than_a_byte_holds_are_summed_without_loss() -> None:
    labels = resolved(*[votes(sad=10)] * 30, *[votes(happy=10)] * 26, copies=[0] * 56)
    assert classes_of(labels) == ["sad"] * 56
    assert labels.use.tolist() == [SCORED] * 56


def test_near_duplicates_with_two_labels_are_both_disputed_and_no_others() -> None:
    rows = [votes(sad=9), votes(sad=9), votes(happy=9), votes(sad=9), votes(sad=4, happy=4), votes(NF=9)]
    labels = resolved(*rows)
    first = np.arange(6)
    for pair, torn in (((1, 2), {1, 2}), ((0, 3), set()), ((0, 4), set()), ((5, 2), set())):
        found = disputed(labels, first, np.array([pair]))
        assert set(np.flatnonzero(found)) == torn, pair
        assert found.dtype == bool and found.shape == (6,)
    assert not disputed(labels, first, np.empty((0, 2), int)).any()


def test_disputed_images_are_numbered_as_the_distinct_ones() -> None:
    labels = resolved(votes(sad=9), votes(sad=9), votes(happy=9), copies=[0, 0, 1])
    assert disputed(labels, np.array([0, 2]), np.array([[0, 1]])).tolist() == [True, True]


def test_an_image_without_any_vote_has_targets_of_zero() -> None:
    assert np.allclose(resolved(votes(), label_set=SOFT).votes, 0)
    assert np.allclose(resolved(votes(sad=1, NF=1), label_set=SOFT).votes, [[0, 0, 1, 0, 0]])


def test_uses_and_reasons_have_numbers_and_names_of_their_own() -> None:
    assert (SCORED, TRAIN_ONLY, UNLABELLED) == (0, 1, 2)
    assert REASONS[:3] == ("", "tie", "no majority") and REASONS[-1] == DISPUTED
    assert len(set(REASONS)) == len(REASONS) == 4 + len(OTHERS)


def emotions(**shares: float) -> list[float]:
    return [shares.get(name, 0) for name in EMOTIONS]


def test_a_classes_share_goes_to_its_emotions_as_their_votes_stand_those_of_copies_together() -> None:
    targets = np.array([[0, 0.7, 0.3, 0, 0]] * 2 + [[1, 0, 0, 0, 0]], np.float32)
    seen = np.array(
        [emotions(anger=6, fear=2, sadness=3), emotions(anger=6), emotions(surprise=10)], np.uint8
    )
    both = emotions(anger=0.7 * 12 / 14, fear=0.7 * 2 / 14, sadness=0.3)
    found = by_emotion(targets, seen, np.array([0, 0, 1]))
    assert np.allclose(found, [both, both, emotions(surprise=1)])
    assert found.dtype == np.float32


def test_a_class_whose_emotions_nobody_told_is_spread_evenly() -> None:
    found = by_emotion(np.array([[0, 1, 0, 0, 0]], np.float32), np.zeros((1, 8), np.uint8), np.array([0]))
    assert np.allclose(found, emotions(anger=1 / 3, disgust=1 / 3, fear=1 / 3))
    assert emotion_of("stress") is None and emotion_of("angry") == EMOTIONS.index("anger")


def test_what_was_posted_takes_its_share_of_a_target_and_nothing_where_it_is_not_known() -> None:
    targets = np.array([emotions(neutral=1), emotions(sadness=1)], np.float32)
    found = with_posted(targets, np.array([EMOTIONS.index("fear"), UNSAID], np.uint8), 0.25)
    assert np.allclose(found, [emotions(neutral=0.75, fear=0.25), emotions(sadness=1)])
