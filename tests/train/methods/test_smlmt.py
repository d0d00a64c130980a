"""The buffer with its index, and the episodes drawn from it, against brute force and against the departures that break them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy
import pytest

from picolm.train.methods.contract import draws_for
from picolm.train.methods.smlmt_buffer import RollingBuffer
from picolm.train.methods.smlmt_draws import weighted_choice
from picolm.train.methods.smlmt_episodes import Episode, EpisodeSettings, draw_episode
from picolm.train.methods.smlmt_published import draw_position_episode

VOCABULARY, MASK = 61, 60
ROWS, LENGTH = 12, 24


def rows_of_step(step: int) -> numpy.ndarray:
    """Rows with a skewed distribution of tokens, another for every step."""
    uniform_BT = numpy.random.default_rng(step).random((ROWS, LENGTH + 1))
    return numpy.floor(MASK * uniform_BT**2).astype(numpy.int64)


def filled(step: int, **changes: Any) -> RollingBuffer:
    options: dict[str, Any] = {"sequences": 40, "sequence_tokens": None, "vocab_size": VOCABULARY, "mask_token": MASK}
    buffer = RollingBuffer(**{**options, **changes})
    buffer.advance_to(step, rows_of_step)
    return buffer


SETTINGS = EpisodeSettings(ways=6, support=3, query=2, mask_token=MASK, frequency_band=(0.0, 1.0), frequency_exponent=0.3)


def episodes(count: int, settings: EpisodeSettings = SETTINGS) -> list[Episode]:
    buffer = filled(9)
    found = [draw_episode(buffer, settings, draws_for(1, "episode", 9, number)) for number in range(count)]
    return [episode for episode in found if episode is not None]


def position_episodes(count: int, *, shared: bool, collapsed: bool) -> list[Episode]:
    buffer = filled(9)
    settings = replace(SETTINGS, shared_positions=shared, collapsed_labels=collapsed)
    found = [draw_position_episode(buffer, settings, draws_for(1, "episode", 9, number), VOCABULARY) for number in range(count)]
    return [episode for episode in found if episode is not None]


def same(first: Episode, second: Episode) -> bool:
    pairs = [(first.words_N, second.words_N), (first.support.tokens_SL, second.support.tokens_SL)]
    return all(numpy.array_equal(*pair) for pair in [*pairs, (first.query.tokens_SL, second.query.tokens_SL)])


def test_the_index_finds_the_sequences_that_a_search_finds():
    buffer = filled(9)
    sequences_SL = buffer.sequences(numpy.arange(len(buffer)))
    for token in range(VOCABULARY):
        assert buffer.sequences_of(token).tolist() == numpy.flatnonzero((sequences_SL == token).any(axis=1)).tolist()


def test_the_buffer_holds_whole_steps_and_at_least_as_many_sequences_as_asked_for():
    buffer = filled(9)
    assert buffer.steps == [6, 7, 8, 9]
    expected = numpy.concatenate([rows_of_step(step)[:, :LENGTH] for step in buffer.steps])
    assert numpy.array_equal(buffer.sequences(numpy.arange(len(buffer))), expected)


def test_a_buffer_filled_step_by_step_equals_one_filled_at_once_and_reads_each_step_once():
    reads: Counter[int] = Counter()

    def read(step: int) -> numpy.ndarray:
        reads[step] += 1
        return rows_of_step(step)

    rolling = RollingBuffer(sequences=40, sequence_tokens=None, vocab_size=VOCABULARY, mask_token=MASK)
    for step in range(10):
        rolling.advance_to(step, read)
        at_once = filled(step)
        assert rolling.steps == at_once.steps
        for token in (0, 7, 30):
            assert numpy.array_equal(rolling.sequences_of(token), at_once.sequences_of(token))
        both = [each.candidates(minimum_sequences=5, band=(0.001, 0.03)) for each in (rolling, at_once)]
        assert numpy.array_equal(both[0].tokens_N, both[1].tokens_N)
        assert numpy.array_equal(both[0].shares_N, both[1].shares_N)
    assert set(reads.values()) == {1}


def test_a_buffer_may_go_back_and_may_leap():
    buffer = filled(9)
    for step in (3, 30, 31):
        buffer.advance_to(step, rows_of_step)
        assert buffer.steps == filled(step).steps
        assert numpy.array_equal(buffer.sequences_of(5), filled(step).sequences_of(5))


def test_rows_can_be_cut_into_shorter_sequences():
    buffer = filled(0, sequence_tokens=10)
    pieces = rows_of_step(0)[:, :20].reshape(-1, 10)
    assert numpy.array_equal(buffer.sequences(numpy.arange(len(buffer))), pieces)


def test_a_sequence_with_the_mask_token_in_it_is_never_used():
    buffer = filled(2, mask_token=3)
    assert len(buffer.sequences_of(3)) == 0
    assert 0 < len(buffer) < 3 * ROWS
    assert len(buffer) + buffer.unusable == 3 * ROWS


def test_candidates_lie_in_the_band_and_in_enough_sequences():
    buffer = filled(9)
    sequences_SL = buffer.sequences(numpy.arange(len(buffer)))
    low, high = 0.005, 0.02
    found = buffer.candidates(minimum_sequences=8, band=(low, high))
    expected = []
    for token in range(VOCABULARY):
        share, holding = (sequences_SL == token).mean(), (sequences_SL == token).any(axis=1).sum()
        if low <= share <= high and holding >= 8:
            expected.append(token)
    assert found.tokens_N.tolist() == expected
    assert found.shares_N == pytest.approx([(sequences_SL == token).mean() for token in expected])


def test_an_episode_has_distinct_words_each_with_distinct_sequences():
    buffer = filled(9)
    original_SL = buffer.sequences(numpy.arange(len(buffer)))
    for episode in episodes(20):
        assert len(set(episode.words_N.tolist())) == episode.ways == 6
        for label, word in enumerate(episode.words_N.tolist()):
            parts = [part.tokens_SL[part.labels_S == label] for part in (episode.support, episode.query)]
            assert [len(part) for part in parts] == [3, 2]
            unmasked_SL = numpy.where((both := numpy.concatenate(parts)) == MASK, word, both)
            places = [numpy.flatnonzero((original_SL == row).all(axis=1)).tolist() for row in unmasked_SL]
            assert all(len(place) == 1 for place in places)
            assert len({place[0] for place in places}) == 5


def hidden_words_are_hidden(episode: Episode) -> bool:
    parts = (episode.support, episode.query)
    return not any((part.tokens_SL == episode.words_N[part.labels_S][:, None]).any() for part in parts)


def test_every_occurrence_of_the_word_is_masked_and_one_of_them_is_where_it_is_read_out():
    for episode in episodes(20):
        assert hidden_words_are_hidden(episode)
        for part in (episode.support, episode.query):
            read_S = part.tokens_SL[numpy.arange(len(part)), part.positions_S]
            assert (read_S == MASK).all()
            assert all((row[place + 1 :] != MASK).all() for row, place in zip(part.tokens_SL, part.positions_S, strict=True))


def test_the_word_stays_readable_where_one_occurrence_is_masked():
    assert not all(hidden_words_are_hidden(episode) for episode in episodes(20, replace(SETTINGS, mask_one_occurrence=True)))


def label_share_of_the_smallest_word(settings: EpisodeSettings) -> float:
    """How often the smallest token of an episode has label 0."""
    return float(numpy.mean([episode.words_N[0] == episode.words_N.min() for episode in episodes(300, settings)]))


def test_labels_say_nothing_about_the_word():
    assert label_share_of_the_smallest_word(SETTINGS) == pytest.approx(1 / 6, abs=0.07)  # three standard deviations


def test_labels_give_the_word_away_where_they_are_sorted():
    assert label_share_of_the_smallest_word(replace(SETTINGS, sorted_labels=True)) == 1.0


def test_words_are_drawn_in_proportion_to_a_power_of_their_share():
    weights_N = numpy.array([0.5, 0.25, 0.125, 0.125])
    first = Counter(int(weighted_choice(draws_for(0, "test", number), weights_N, 1)[0]) for number in range(4000))
    assert [first[place] / 4000 for place in range(4)] == pytest.approx(weights_N.tolist(), abs=0.03)
    second = Counter(tuple(weighted_choice(draws_for(0, "test", number), weights_N, 2).tolist()) for number in range(4000))
    assert second[0, 1] / 4000 == pytest.approx(0.5 * 0.25 / 0.5, abs=0.03)


def test_a_buffer_with_few_words_gives_fewer_ways_and_never_a_made_up_class():
    narrow = replace(SETTINGS, frequency_band=(0.03, 0.05))
    candidates = filled(9).candidates(minimum_sequences=5, band=(0.03, 0.05)).tokens_N
    assert 2 <= len(candidates) < 6
    for episode in episodes(10, narrow):
        assert sorted(episode.words_N.tolist()) == candidates.tolist()
        assert set(episode.support.labels_S.tolist()) == set(range(len(candidates)))


def test_no_episode_without_two_words():
    assert draw_episode(filled(9), replace(SETTINGS, frequency_band=(0.9, 1.0)), draws_for(1, "episode", 9, 0)) is None


def test_an_episode_depends_on_seed_step_and_number_alone():
    first, second = episodes(3), episodes(3)
    assert all(same(*pair) for pair in zip(first, second, strict=True))
    assert not same(first[0], first[1])
    buffer = filled(9)
    others = [draw_episode(buffer, SETTINGS, draws_for(*key)) for key in ((2, "episode", 9, 0), (1, "episode", 8, 0))]
    assert not any(same(first[0], other) for other in others if other is not None)


def largest_class_share(found: list[Episode]) -> float:
    """The mean share of the most frequent class among query targets; one over the ways if they are flat."""
    return float(numpy.mean([numpy.bincount(each.query.labels_S).max() / len(each.query) for each in found]))


def test_classes_are_equally_frequent():
    assert largest_class_share(episodes(20)) == pytest.approx(1 / 6)


def test_one_class_swallows_the_others_where_labels_collapse():
    collapsed = position_episodes(20, shared=False, collapsed=True)
    assert all(episode.ways == 6 for episode in collapsed)
    assert largest_class_share(collapsed) > 0.4
    assert min(episode.query.labels_S.min() for episode in collapsed) == 0


def places_are_shared(episode: Episode) -> bool:
    return len(set(episode.support.positions_S.tolist())) <= SETTINGS.support


def test_words_stand_anywhere_unless_positions_are_shared():
    assert not any(places_are_shared(episode) for episode in episodes(20))
    assert not any(places_are_shared(episode) for episode in position_episodes(20, shared=False, collapsed=True))
    assert all(places_are_shared(episode) for episode in position_episodes(20, shared=True, collapsed=True))


def test_without_collapsed_labels_examples_of_other_tokens_are_left_out():
    for episode in position_episodes(20, shared=True, collapsed=False):
        assert set(episode.support.labels_S.tolist()) <= set(range(episode.ways))
        assert len(episode.query) < SETTINGS.ways * SETTINGS.query
        assert hidden_words_are_hidden(episode)
