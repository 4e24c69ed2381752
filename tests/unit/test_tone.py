"""How tone is learned, with the figures of its rules."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from promptpipe.flows.tone import TAGS, Tone, UpdateSource, guide
from promptpipe.flows.tone.guide import ALWAYS, BY_DEFAULT, RULES
from promptpipe.flows.tone.tone import known_tags
from promptpipe.model.errors import CorruptStateError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPLICIT, IMPLICIT = UpdateSource.EXPLICIT, UpdateSource.IMPLICIT


def tone(tags: str = "", **scores: float) -> Tone:
    return Tone(tags=tuple(tags.split()), scores=scores)


@pytest.mark.parametrize(
    ("proposed", "known"),
    [
        ([" Concise ", "FORMAL", "concise"], ("concise", "formal")),
        ("concise, Formal ,snarky", ("concise", "formal")),
        (["snarky", 7, None, ["concise"]], ()),
        ({"concise": 1}, ()),
        (None, ()),
    ],
)
def test_proposals_are_cleaned(proposed: object, known: tuple[str, ...]) -> None:
    """Lower case, trimmed, each once, what nobody knows left out."""
    assert known_tags(proposed) == known


@pytest.mark.parametrize(
    ("confidence", "score", "tags"), [(1.0, 1.0, ("casual",)), (0.69, 0.69, ()), (7, 1.0, ("casual",)), (-1, None, ())]
)
def test_explicit_update_sets_scores_at_once(confidence: float, score: float | None, tags: tuple[str, ...]) -> None:
    """Clamped to [0, 1]; the others stay as they are, however soon it comes after the last."""
    before = Tone(scores={"bullet_points": 0.5}, last_updated_at=NOW)
    after = before.updated(["casual"], EXPLICIT, NOW, confidence)
    assert (after.scores.get("casual"), after.scores["bullet_points"], after.tags) == (score, 0.5, tags)
    assert (after.version, after.last_updated_at, after.update_source) == (1, NOW, EXPLICIT)


@pytest.mark.parametrize(
    ("old", "observed", "expected"), [(0.0, 1.0, 0.15), (0.5, 1.0, 0.575), (0.5, 0.4, 0.485), (1.0, 1.0, 1.0)]
)
def test_implicit_update_moves_scores_a_little(old: float, observed: float, expected: float) -> None:
    """0.85 of the old and 0.15 of what was observed; 0.85 of all others."""
    after = tone(concise=old, formal=0.8).updated(["concise"], IMPLICIT, NOW, observed)
    assert after.scores["concise"] == pytest.approx(expected)
    assert after.scores["formal"] == pytest.approx(0.68)


@pytest.mark.parametrize(("later", "applied"), [(timedelta(seconds=179), False), (timedelta(minutes=3), True)])
def test_implicit_update_is_ignored_soon_after_another(later: timedelta, applied: bool) -> None:
    """Within three minutes of the last, of whatever source."""
    before = Tone(scores={"concise": 0.5}, version=3, last_updated_at=NOW)
    after = before.updated(["concise"], IMPLICIT, NOW + later)
    assert (after is not before) is applied
    assert after.version == 3 + applied


@pytest.mark.parametrize(
    ("was_active", "score", "active"),
    [
        (False, 0.69, False),
        (False, 0.7, True),
        (True, 0.69, True),
        (True, 0.41, True),
        (True, 0.4, False),
        (False, 0.41, False),
    ],
)
def test_tag_is_active_from_one_score_and_inactive_from_another(was_active: bool, score: float, active: bool) -> None:
    """Between them it stays what it was."""
    before = tone("concise" if was_active else "", concise=0.5)
    assert before.updated(["concise"], EXPLICIT, NOW, score).tags == (("concise",) if active else ())


def test_it_takes_many_observations_to_make_a_tag_active() -> None:
    """Eight in a row; and four without it to undo them."""
    current, count, at = Tone(), 0, NOW
    while "casual" not in current.tags:
        at += timedelta(minutes=3)
        current, count = current.updated(["casual"], IMPLICIT, at), count + 1
    assert count == 8
    assert current.scores["casual"] == pytest.approx(1 - 0.85**8, abs=1e-4)
    while "casual" in current.tags:
        at += timedelta(minutes=3)
        current, count = current.updated(["bullet_points"], IMPLICIT, at), count + 1
    assert count == 12


@pytest.mark.parametrize("pair", [("concise", "detailed"), ("formal", "casual"), ("direct_coach", "gentle_coach")])
def test_of_an_excluding_pair_the_lower_gives_way(pair: tuple[str, str]) -> None:
    """With both at 0.7 or more it becomes 0.39; of two that are equal, the older."""
    for one, other in (pair, pair[::-1]):
        after = tone(one, **{one: 0.9}).updated([other], EXPLICIT, NOW, 0.8)
        assert (after.scores[other], after.tags) == (0.39, (one,))
        after = tone(one, **{one: 0.8}).updated([other], EXPLICIT, NOW, 0.8)
        assert (after.scores[one], after.tags) == (0.39, (other,))
        after = tone(one, **{one: 0.5}).updated([other], EXPLICIT, NOW, 0.8)
        assert (after.scores[one], after.tags) == (0.5, (other,))


def test_no_emojis_beats_emojis_ok() -> None:
    """Whatever the scores."""
    after = tone("no_emojis", no_emojis=0.7).updated(["emojis_ok"], EXPLICIT, NOW, 1.0)
    assert (after.scores, after.tags) == ({"no_emojis": 0.7, "emojis_ok": 0.39}, ("no_emojis",))
    after = tone("emojis_ok", emojis_ok=1.0).updated(["no_emojis"], EXPLICIT, NOW, 0.7)
    assert after.tags == ("no_emojis",)


def test_what_fades_is_forgotten() -> None:
    """And what changes nothing is no update."""
    assert "formal" not in tone(formal=0.011).updated(["concise"], IMPLICIT, NOW).scores
    before = tone(formal=0.5)
    assert before.updated(["snarky"], EXPLICIT, NOW) is before


def test_tone_comes_back_from_a_profile_as_it_went() -> None:
    """What nobody knows is passed over."""
    current = Tone().updated(["casual", "bullet_points"], EXPLICIT, NOW, 0.9)
    assert Tone.from_data(current.to_data()) == current
    assert Tone.from_data(None) == Tone()
    data = {"tags": ["snarky", "casual"], "scores": {"snarky": 1, "casual": 9}}
    assert Tone.from_data(data) == Tone(tags=("casual",), scores={"casual": 1.0})


@pytest.mark.parametrize(
    "data",
    [
        [],
        "formal",
        {"scores": [1]},
        {"scores": {"formal": "high"}},
        {"scores": {"formal": True}},
        {"scores": {"formal": math.nan}},
        {"tags": 7},
        {"version": "many"},
        {"last_updated_at": "yesterday"},
        {"last_updated_at": 7},
        {"update_source": "rumour"},
    ],
)
def test_tone_that_is_none_says_so(data: object) -> None:
    """Somebody has edited it by hand."""
    with pytest.raises(CorruptStateError, match="tone"):
        Tone.from_data(data)


def test_guide_has_the_rules_of_what_is_active() -> None:
    """A neutral stance unless another is wanted, and never hostility; nothing where nothing is known."""
    assert guide(Tone(scores={"formal": 0.5})) == ""
    lines = guide(tone("concise bullet_points")).splitlines()
    assert lines[1:] == [f"- {rule}" for rule in (RULES["concise"], RULES["bullet_points"], BY_DEFAULT, ALWAYS)]
    assert BY_DEFAULT not in guide(tone("gentle_coach"))
    assert set(RULES) == set(TAGS)
