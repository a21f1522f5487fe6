"""How far through a part of a run a network is, by updates and by episodes."""

import pytest

from dstrl_cli.topology.span import Span


@pytest.mark.parametrize(
    ("update", "episodes", "expected"),
    [
        (100, 0.0, 0.0),
        (200, 0.0, 0.0),
        (350, 0.0, 0.25),
        (350, 0.5, 0.5),  # three of six tenths of the episodes
        (650, 0.5, 0.75),  # the updates are further
        (800, 0.0, 1.0),
        (900, 0.9, 1.0),
    ],
)
def test_the_further_of_updates_and_episodes_counts(
    update: int, episodes: float, expected: float
) -> None:
    span = Span((200, 800), (0.2, 0.8))
    assert span.done(update, episodes) == pytest.approx(expected)


def test_a_span_without_length_is_done_from_its_start_on() -> None:
    span = Span((30, 30), (0.5, 0.5))
    assert [span.done(update, 0.0) for update in (29, 30, 31)] == [0, 1, 1]
    assert [span.done(1, episodes) for episodes in (0.49, 0.5)] == [0, 1]
