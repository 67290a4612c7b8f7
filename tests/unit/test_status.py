"""The table of moves is the rule; the rest of the code is held to it."""

from __future__ import annotations

import itertools

import pytest

from everythingfaas.errors import IllegalMove
from everythingfaas.status import CONTRACT_STATES, MOVES, Event, State, check_move, contract_state, sources


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_a_move_is_in_the_table_or_raises(state: State, event: Event) -> None:
    if (state, event) in MOVES:
        assert check_move(state, event) is MOVES[state, event].target
    else:
        with pytest.raises(IllegalMove, match=state.name):
            check_move(state, event)


def test_nothing_follows_an_end() -> None:
    assert not [state for state, _ in MOVES if state.is_terminal]


def test_every_state_is_left_or_terminal_and_every_one_but_the_first_is_reached() -> None:
    assert {state for state, _ in MOVES} == {state for state in State if not state.is_terminal}
    assert {move.target for move in MOVES.values()} >= set(State) - {State.WAITING}


def test_sources_are_those_of_the_table() -> None:
    assert sources(Event.CLAIM) == (State.QUEUED,)
    assert sources(Event.WITHDRAW) == (State.WAITING, State.QUEUED)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("state", State)
def test_the_contract_has_four_words(state: State, begun: bool) -> None:
    assert contract_state(state, begun=begun) in CONTRACT_STATES


def test_a_status_at_the_contract_never_goes_back() -> None:
    """Along every legal move, begun or beginning, the word's place in the contract's order does not shrink."""
    rank = {"QUEUED": 0, "RUNNING": 1, "COMPLETED": 2, "FAILED": 2}
    for (state, event), move in MOVES.items():
        for begun in (False, True):
            after = begun or event is Event.BEGIN
            assert rank[contract_state(state, begun=begun)] <= rank[contract_state(move.target, begun=after)]
