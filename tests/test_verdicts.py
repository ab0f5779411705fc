"""Conditions at their bounds, verdicts of data that say the same in another way, and the list of claims."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from precode import claims as pcc
from precode._internal.statistics import interval
from precode.claims import AnyOf, Asked, Condition, Observations, judge, rules_version, synthetic_study
from precode.claims.c1 import CLAIM as C1
from precode.claims.records import Finding
from precode.claims.rules import Rules
from precode.claims.statistics import estimate

ROOT = Path(__file__).parent.parent
FORMULAS = 10


def values(mean, half):
    """Ten values of a mean, not less by rounding, whose interval is at most `half` from it."""
    spread = np.linspace(-1, 1, FORMULAS)
    low, high = interval(spread)
    return mean + 1e-12 + half * spread / max(high, -low)


def sizes(found):
    return estimate(values(*found))


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("mean", "half", "answer"),
    [
        (0.1, 0.099, "met"),  # the value is the least size, its interval is above 0
        (0.1, 0.101, "open"),  # the interval is not
        (0.099, 0.05, "open"),  # the value is less than the least size, which the interval holds
        (0.05, 0.0499, "refuted"),  # above 0, but the interval is below the least size
        (0.05, 0.0501, "open"),
        (0.0, 0.2, "open"),
        (-0.1, 0.05, "refuted"),
    ],
)
def test_conditions_at_their_bounds(mean, half, answer):
    condition = Condition("x", "x", least=0.1)
    assert condition.answer({"x": sizes((mean, half))}) == answer
    assert condition.answer({"x": None}) == condition.answer({}) == "open"


@pytest.mark.parametrize(("mean", "half", "answer"), [(0.3, 0.049, "met"), (0.3, 0.06, "open"), (0.2, 0.04, "refuted")])
def test_a_condition_on_an_interval_alone(mean, half, answer):
    condition = Condition("x", "x", least=0.25, above=0.25)
    assert condition.text == "x has an interval above 0.25"
    assert condition.answer({"x": sizes((mean, half))}) == answer


def test_values_that_are_all_the_same_decide():
    same = estimate([0.1] * FORMULAS)
    assert Condition("x", "x", 0.1).answer({"x": same}) == "met"
    assert Condition("x", "x", 0.2).answer({"x": same}) == "refuted"
    assert Condition("x", "x", 0.1, above=0.1).answer({"x": same}) == "refuted"


def test_several_ways_share_the_level():
    first, second = Condition("x", "x", 0.0, above=-1), Condition("y", "y", 0.0, above=-1)
    either = AnyOf([first, second])
    alone, shared = sizes((0.0, 0.999)), sizes((-5.0, 0.1))
    assert first.answer({"x": alone}) == "met"
    assert alone.ends(0.5)[0] < -1 < alone.low
    assert either.answer({"x": alone, "y": shared}) == "open"
    assert either.answer({"x": sizes((0.0, 0.5)), "y": shared}) == "met"
    assert either.answer({"x": shared, "y": shared}) == "refuted"
    # One of several estimates must do, each at its part.
    assert first.answer({"x": [sizes((0.0, 0.5)), shared]}) == "met"
    assert first.answer({"x": [alone, shared]}) == "open"
    assert first.answer({"x": [shared, shared]}) == "refuted"


def test_verdicts_follow_from_the_conditions():
    asked = Asked(
        [Condition("x", "x", 0.2), Condition("y", "y", 0.1), Condition("z", "z", 0.1, optional=True)],
        [Condition("x", "x", 0.1)],
    )
    high, middle, low, wide = (sizes(found) for found in ((0.3, 0.05), (0.15, 0.04), (0.01, 0.02), (0.05, 0.2)))
    for estimates, verdict in (
        ({"x": high, "y": high}, "holds"),
        ({"x": high, "y": high, "z": high}, "holds"),
        ({"x": high, "y": high, "z": low}, "partly"),
        ({"x": high, "y": low}, "partly"),
        ({"x": high}, "partly"),
        ({"x": middle, "y": high}, "partly"),
        ({"x": low, "y": high}, "does not hold"),
        ({"x": wide, "y": high}, "inconclusive"),
        ({"x": None, "y": high}, "inconclusive"),
    ):
        assert asked.verdict(estimates) == verdict
    assert "z is at least 0.1 with an interval above 0 (where it was measured)" in asked.text


@pytest.mark.parametrize("claim", pcc.CLAIMS, ids=lambda claim: claim.name)
def test_every_condition_of_every_claim_decides_at_its_bound(claim):
    """Just above and just below the least size and the bound, all other conditions being met."""
    asked = claim.asks(claim.own(Rules()))
    parts = [p for c in asked.holds for p in (c.conditions if isinstance(c, AnyOf) else [c])]
    high = {p.measure: sizes((max(p.least, p.above) + 0.2, 0.01)) for p in parts}
    high |= {"rejected": sizes((0.5, 0.01)), "converged": sizes((0.5, 0.01))}
    high["strata"] = [sizes((0.3, 0.01))]
    assert asked.verdict(high) == "holds"
    for part in parts:
        least, above = max(part.least, part.above), part.above
        if least > above:
            gap = least - above
            at = {**high, part.measure: sizes((least, 0.99 * gap))}
            assert asked.verdict(at) == "holds", part.text
            under = {**high, part.measure: sizes((least - 0.01 * gap, 0.9 * gap))}
            assert asked.verdict(under) != "holds", part.text
            wide = {**high, part.measure: sizes((least, 1.01 * gap))}
            assert asked.verdict(wide) != "holds", part.text
        else:
            assert asked.verdict({**high, part.measure: sizes((above + 0.02, 0.0199))}) == "holds", part.text
            assert asked.verdict({**high, part.measure: sizes((above + 0.02, 0.0201))}) != "holds", part.text


# ---------------------------------------------------------------- the same data in another form


@pytest.fixture(scope="module")
def study():
    return synthetic_study("planted", formulas=FORMULAS, hidden=24, clauses=12, seed=2)


def judged(study, change=lambda table: table):
    tables = {name: change(table) for name, table in vars(study.observations).items()}
    return judge(Observations(**tables), change(study.tickets), change(study.transport), rules={"resamples": 199})


@pytest.fixture(scope="module")
def verdicts(study):
    return judged(study)


def alike(found, verdicts, rtol=1e-9):
    for name, verdict in verdicts.items():
        assert found[name].verdict == verdict.verdict
        assert found[name].conditions == verdict.conditions
        np.testing.assert_allclose(found[name].effect, verdict.effect, rtol=rtol)


def test_cells_that_are_there_twice_change_nothing(study, verdicts):
    def twice(table):
        return pd.concat([table, table.assign(hidden=table["hidden"] + 100)], ignore_index=True)

    alike(judged(study, twice), verdicts)


def test_formulas_and_rows_in_another_order_change_nothing(study, verdicts):
    def turned(table):
        return table.assign(formula=FORMULAS - 1 - table["formula"]) if "formula" in table else table

    # Folds and permuted nulls of C4 follow the order of the formulas.
    found = {name: verdict for name, verdict in judged(study, turned).items() if name != "C4"}
    alike(found, {name: verdicts[name] for name in found}, rtol=1e-6)
    renamed = judged(study, lambda t: t.assign(row=t["row"].max() - t["row"]) if "row" in t else t)
    alike(renamed, verdicts)


def test_a_large_cell_weighs_as_much_as_a_small_one(study):
    """Locations of one cell four times over: means over cells do not move."""
    first = study.observations
    other = synthetic_study("shuffled", formulas=FORMULAS, hidden=16, clauses=4, seed=2).observations
    both = Observations.concat([first, other])
    big = Observations(**{**vars(both), "locations": pd.concat([both.locations, *[other.locations] * 3])})
    small, large = (judge(seen, claims="C2", rules={"resamples": 199})["C2"] for seen in (both, big))
    assert large.effect == pytest.approx(small.effect)
    assert large.conditions == small.conditions


# ---------------------------------------------------------------- the list of claims


def count(data, rules):
    found = estimate(data.observations.locations.groupby("formula")["clause"].nunique().astype(float), rules)
    return Finding(found, {"clauses": found}, {"none": 0.0}, pd.DataFrame({"clauses": [found.value]}))


NEW = pcc.Claim(
    name="C7",
    statement="Formulas have clauses.",
    measure="clauses, in {unit}",
    choices={"least": pcc.Value(1.0, "least number of clauses"), "unit": pcc.Value("pieces", "what is counted")},
    test=count,
    asks=lambda own: Asked(
        [Condition("clauses", "the number of clauses", own["least"])],
        [Condition("clauses", "the number of clauses", 0.5 * own["least"])],
    ),
    question="Are there clauses?",
    words="We count them.",
    nulls={"none": pcc.Shown("no clauses at all", "an empty formula")},
)


@pytest.fixture
def one_more():
    pcc.CLAIMS.append(NEW)
    yield
    pcc.CLAIMS.remove(NEW)


def test_a_claim_that_is_added_to_the_list_is_everywhere(study, one_more, tmp_path):
    from precode.cli.study import _verdicts
    from precode.report import write_report
    from precode.study import Kind, run
    from study_kinds import CONFIG

    found = judge(study.observations, rules={"resamples": 199})
    assert list(found) == ["C1", "C2", "C3", "C4", "C5", "C6", "C7"]
    assert found["C7"].verdict == "holds"
    assert found["C7"].measure == "clauses, in pieces"
    assert pcc.claims_table(found)["name"].iloc[-1] == "C7"
    assert pcc.load_rules()["C7"] == {"least": 1.0, "unit": "pieces"}
    assert "C7  holds" in _verdicts([verdict.record() for verdict in found.values()])
    rates = pcc.verdict_rates("planted", 1, formulas=FORMULAS, hidden=16, clauses=8, resamples=99)
    assert rates.loc["C7", "holds"] == 1
    kind = Kind("nothing", lambda config: [{}], lambda settings: {"x": pd.DataFrame({"x": [1]})}, lambda settings: 1.0)
    write_report(run(CONFIG, tmp_path / "study", kinds=[kind]), [found["C7"]], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("Are there clauses?", "We count them.", "no clauses at all", "an empty formula", 'id="C7"'):
        assert text in page


def test_the_version_of_the_rules_covers_code_and_text(tmp_path, monkeypatch):
    from precode.claims import registry

    source = Path(registry.__file__).parent
    for path in source.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    before = rules_version()
    assert re.fullmatch("[0-9a-f]{64}", before)
    for name, changes in {
        "c3.py": True,
        "statistics.py": True,
        "conditions.py": True,
        "observations.py": False,
    }.items():
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text + "# another word\n", encoding="utf-8")
        assert (rules_version() != before) == changes
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "c7.py").write_text("", encoding="utf-8")
    assert rules_version() != before


def test_the_page_of_claims_has_the_rules():
    """Its section on rules is what the records say."""
    page = (ROOT / "docs/reference/claims.md").read_text(encoding="utf-8")
    for claim in pcc.CLAIMS:
        section = page[page.index(f"### {claim.name}. {claim.statement}") :]
        assert f"\n{claim.rule()}\n" in section
        rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", section.partition("\n### ")[0], re.MULTILINE))
        assert rows == {name: choice.meaning for name, choice in claim.choices.items()}
    assert C1.rule() != C1.rule({"C1": {"holds": 0.2}})
