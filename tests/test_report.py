"""Figures of the claims against their tables, and the report of synthetic studies."""

import base64
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import precode as pc
from precode import plot
from precode.claims import CLAIMS, Observations, judge, judge_setting, load_rules, rules_version, synthetic_study
from precode.report import write_report
from precode.report.document import figures_of
from precode.study import Kind, run
from study_kinds import CONFIG

FORMULAS = 10
ARXIV = {"https://arxiv.org/abs/2605.17704", "https://arxiv.org/abs/2504.08842"}


@pytest.fixture(scope="module")
def tables():
    return synthetic_study("planted", formulas=FORMULAS, hidden=16, clauses=8, seed=1)


@pytest.fixture(scope="module")
def claims(tables):
    rules = {**load_rules(), "resamples": 99}
    return judge(tables.observations, tables.tickets, tables.transport, rules=rules)


def study_of(folder, results):
    """A study of one cell with some results."""
    point = {"hidden": 16, "clauses": 8, "embedding": "identity"}
    kind = Kind("synthetic", lambda config: [point], lambda settings: results, lambda settings: 1.0)
    return run(CONFIG, folder, kinds=[kind])


@pytest.fixture(scope="module")
def study(tables, tmp_path_factory):
    similar = pd.DataFrame({"formula": range(FORMULAS), "cka": 0.9, "svcca": 0.8, "cka_null": 0.5, "svcca_null": 0.6})
    results = {
        **vars(tables.observations),
        "similarity": similar,
        "tickets": tables.tickets,
        "transport": tables.transport,
        "row_transport": {"imp at 0.25": np.eye(16)[None], "random at 0.25": np.ones((1, 16, 16))},
    }
    return study_of(tmp_path_factory.mktemp("study"), results)


@pytest.fixture(scope="module")
def parts(tables):
    """The claims in two widths, each by itself."""
    both = [tables, synthetic_study("shuffled", formulas=FORMULAS, hidden=32, clauses=8, seed=1)]
    verdicts = judge_setting(
        Observations.concat([each.observations for each in both]),
        pd.concat([each.tickets for each in both]),
        pd.concat([each.transport for each in both]),
        rules={**load_rules(), "resamples": 99},
    )
    return pd.concat([verdict.table("parts").assign(name=name) for name, verdict in verdicts.items()])


@pytest.fixture(scope="module")
def judged(claims, parts, study):
    own = {name: {**claim.tables, "parts": parts[parts["name"] == name]} for name, claim in claims.items()}
    own["C1"]["similarity"] = study.table("similarity")
    return [replace(claim, tables=own[name]) for name, claim in claims.items()]


@pytest.fixture(scope="module")
def report(judged, study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    study.export(folder / "tables")
    write_report(study, judged, folder / "report.html")
    return folder / "report.html"


# ---------------------------------------------------------------- figures

DRAWN = {
    "distances": lambda seen, claims, ax: plot.distances(seen.observations.nulls, ax=ax),
    "distances of 3N1P": lambda seen, claims, ax: plot.distances(seen.observations.nulls, "3N1P", ax=ax),
    "metrics": lambda seen, claims, ax: plot.metrics(claims["C1"].details, ax=ax),
    "convergence": lambda seen, claims, ax: plot.convergence(claims["C2"].details, seen.observations.nulls, ax=ax),
    "motion": lambda seen, claims, ax: plot.motion(claims["C2"].tables["motion"], "soft", ax=ax),
    "crowding": lambda seen, claims, ax: plot.crowding(claims["C3"].tables["doses"], ax=ax),
    "slopes": lambda seen, claims, ax: plot.slopes(claims["C3"].details, claims["C3"].nulls, ax=ax),
    "gains": lambda seen, claims, ax: plot.gains(claims["C4"].details, claims["C4"].nulls, ax=ax),
    "penalties": lambda seen, claims, ax: plot.penalties(claims["C4"].tables["penalties"], ax=ax),
    "recovery": lambda seen, claims, ax: plot.recovery(claims["C5"].tables["tickets"], ax=ax),
    "row_transport": lambda seen, claims, ax: plot.row_transport(np.eye(3), 0.2, ax=ax),
    "wins": lambda seen, claims, ax: plot.wins(claims["C6"].details, "recovery_family", ax=ax),
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_draw_on_the_given_axes_and_return_them(name, tables, claims):
    figure, ax = plt.subplots()
    assert DRAWN[name](tables, claims, ax) is ax
    assert ax.has_data()
    assert ax.get_xlabel()
    assert ax.get_ylabel() or name in ("metrics", "recovery")
    figure.canvas.draw()
    plt.close(figure)


def test_bars_are_the_shares_of_codes_at_each_distance(tables):
    ax = plot.distances(tables.observations.nulls)
    heights = [patch.get_height() for patch in ax.patches]
    seen = tables.observations.locations.query("kind == 'formula' and template == '4P' and polarity and code")
    each = [
        np.bincount(part["hamming"].astype(int), minlength=5) / len(part)
        for _, part in seen.groupby("formula")
        if len(part)
    ]
    np.testing.assert_allclose(heights, np.mean(each, axis=0))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sum(label.startswith("null: ") for label in labels) == tables.observations.nulls["null"].nunique() - 1
    plt.close(ax.figure)


def test_lines_of_tickets_are_means_over_formulas_of_all_cells():
    # Formula 1 is in one cell only.
    table = pd.DataFrame(
        {
            "hidden": [32, 64, 32],
            "method": "imp",
            "density": 0.35,
            "formula": [0, 0, 1],
            "accuracy": [0.8, 0.9, 0.95],
        }
    )
    ax = plot.tickets(table)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), [(0.85 + 0.95) / 2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.35"]
    plt.close(ax.figure)


def test_parts_are_judged_as_if_they_were_all(claims, parts):
    alone = parts[parts["by"] == "codes"]
    assert set(alone["name"]) == {"C1", "C2", "C3", "C4"}
    assert all(part["part"].tolist() == ["4P alone", "3N1P alone"] for _, part in alone.groupby("name"))
    parts = parts[parts["by"] != "codes"]
    assert parts["by"].eq("hidden").all()
    planted = parts[parts["part"] == "16"].set_index("name")
    assert planted["verdict"].to_dict() == {name: claim.verdict for name, claim in claims.items()}
    np.testing.assert_array_equal(planted["effect"], [claim.effect for claim in claims.values()])
    shuffled = parts[parts["part"] == "32"]
    assert set(shuffled["verdict"]) <= {"does not hold", "inconclusive"}
    ax = plot.parts(parts[parts["name"] == "C1"], whole=0.1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["hidden 16", "hidden 32"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() in (":", "--")] == [0.0, 0.1]
    plt.close(ax.figure)


def test_a_matrix_of_wins_says_when_formulas_are_too_few_for_stars(claims):
    few, many = (claims["C6"].details.assign(could_reject=could) for could in (False, True))
    titles = [plot.wins(details).get_title() for details in (few, many)]
    assert "no stars" in titles[0]
    assert "no stars" not in titles[1]
    plt.close("all")


def test_every_figure_of_motion_and_tickets_has_its_null(tables, claims):
    for ax, nulls in (
        (plot.motion(claims["C2"].tables["motion"]), 2),
        (plot.tickets(pd.DataFrame({"method": ["imp", "random"], "density": 0.1, "formula": 0, "accuracy": 0.9})), 1),
    ):
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert sum(label.startswith("null: ") for label in labels) == nulls
        plt.close(ax.figure)
    curves = claims["C2"].tables["motion"].query("kind == 'false' and template == '4P' and fate == 'rejected'")
    (drawn,) = (
        line for line in plot.motion(claims["C2"].tables["motion"]).lines if "false clauses, rej" in line.get_label()
    )
    np.testing.assert_allclose(drawn.get_ydata(), curves.sort_values("epoch")["hamming"])
    plt.close("all")


def test_the_matrix_of_wins_has_every_rate_at_its_place(claims):
    details = claims["C6"].details
    rates = details[details["measure"] == "accuracy"].set_index(["probe", "rival"])
    ax = plot.wins(details, "accuracy")
    probes, rivals = ([label.get_text() for label in axis] for axis in (ax.get_yticklabels(), ax.get_xticklabels()))
    for text in ax.texts:
        column, row = text.get_position()
        pair = rates.loc[probes[row], rivals[column]]
        starred = pair["p_holm"] < 0.05 and np.sign(pair["win_rate"] - 0.5) == np.sign(pair["difference"])
        assert text.get_text() == f"{pair['win_rate']:.2f}{'*' if starred else ''}"
    assert len(ax.texts) == len(rates)
    plt.close(ax.figure)


def test_tables_that_cannot_be_drawn_are_refused(tables, claims):
    nulls = tables.observations.nulls
    for draw, message in (
        (lambda: plot.distances(nulls.drop(columns="codes")), "no column 'codes'"),
        (lambda: plot.distances(nulls, "5P"), "no rows of template 5P: there are 4P, 3N1P, 2P2N"),
        (lambda: plot.distances(nulls.assign(codes=0.0)), "no codes to draw"),
        (lambda: plot.crowding(claims["C3"].tables["doses"].iloc[:0]), "no near locations to draw"),
        (lambda: plot.wins(claims["C6"].details, "speed"), "no contests in 'speed': there are those in accuracy, reco"),
        (lambda: plot.row_transport(np.zeros((2, 3))), r"shape \(2, 3\): expected \(j, j\)"),
    ):
        before = plt.get_fignums()
        with pytest.raises(pc.PrecodeError, match=message):
            draw()
        assert plt.get_fignums() == before


def test_accuracy_in_the_report_shows_the_dense_networks_and_all_methods(study, claims):
    table = study.table("tickets")
    higher = table["dense_accuracy"].mean() + 0.1

    class Higher:
        def table(self, name):
            return study.table(name).assign(dense_accuracy=higher)

    probes, rivals, *_ = figures_of("C6")
    axes = [figure.draw(claims["C6"], Higher()) for figure in (probes, rivals)]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    low, high = axes[0].get_ylim()
    means = table.groupby(["method", "density"])["accuracy"].mean()
    assert low < means.min()
    assert higher < high
    for ax in axes:
        plt.close(ax.figure)


# ---------------------------------------------------------------- report


EMPTY = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements, links, images and text of a page; fails where elements are not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.names, self.links, self.images, self.ids, self.text = [], set(), [], [], set(), ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.names.add(tag)
        self.ids.add(values.get("id"))
        if tag not in EMPTY:
            self.open.append(tag)
        if "href" in values:
            self.links.append(values["href"])
        if "src" in values:
            self.images.append(values["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


def words(text):
    return " ".join(text.split())


def test_the_report_has_every_claim_with_verdict_rule_and_nulls(report, judged):
    page = Page(report.read_text(encoding="utf-8"))
    text = words(page.text)
    for claim in judged:
        assert claim.name in page.ids
        section = text[text.index(f"{claim.name}. {claim.statement}") :]
        section = section[: section.index("Rule.")]
        assert claim.verdict in section
        assert f"{claim.effect:.3g} [{claim.low:.3g}, {claim.high:.3g}]" in section
        assert words(claim.rule) in text
        assert all(words(condition) in text for condition in claim.conditions)
        assert all(f"{value:.3g}" in text for value in claim.nulls.values() if np.isfinite(value))
    assert all(word in text for word in ("[ours]", "magnitude", "precode 0", rules_version()))


def test_the_report_needs_no_network_and_its_links_lead_somewhere(report):
    page = Page(report.read_text(encoding="utf-8"))
    assert {link for link in page.links if "://" in link} == ARXIV
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    files = [link for link in page.links if link.startswith("tables/")]
    assert len(files) == 2 * 6
    assert all((report.parent / link).is_file() for link in files)
    assert not page.names & {"script", "link", "iframe", "object"}
    assert all(image.startswith("data:image/svg+xml;base64,") for image in page.images)
    # The references and controls of a study with probes and weight-based methods alone are left out, in both measures,
    # and so is retention, which it does not have.
    assert len(page.images) == sum(len(figures_of(claim.name)) for claim in CLAIMS) - 5
    for image in page.images:
        root = ElementTree.fromstring(base64.b64decode(image.partition(",")[2]))
        hrefs = [value for item in root.iter() for name, value in item.attrib.items() if name.endswith("href")]
        assert all(value.startswith(("#", "data:")) for value in hrefs)


def test_the_same_study_gives_the_same_bytes(report, study, judged):
    before = report.read_bytes()
    write_report(study, judged, report)
    assert report.read_bytes() == before
    assert sorted(path.name for path in report.parent.iterdir()) == ["report.html", "tables"]


def test_the_report_says_when_other_rules_judged(judged, study, tmp_path):
    for planned, note in ((rules_version(), ""), ("0" * 64, "planned under version 000000000000 of the rules")):
        text = words(Page(written(judged, Planned(study, planned), tmp_path)).text)
        assert ("Another version of the rules may give another verdict." in text) == bool(note)
        assert note in text
        assert rules_version() in text


class Planned:
    """A study whose folder says under which rules it was planned."""

    def __init__(self, study, rules):
        self.study, self.rules = study, rules

    def __getattr__(self, name):
        return getattr(self.study, name)


def written(verdicts, study, folder):
    write_report(study, verdicts[:1], folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_text_is_escaped(study, claims, tmp_path):
    evil = "<script>alert('1')</script> & \"x\""
    changed = replace(
        claims["C2"], statement=evil, reason=evil, rule=evil, nulls={evil: 0.0}, conditions={evil: "met"}, tables={}
    )
    write_report(study, [changed], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.names
    assert html.unescape(text).count(evil) >= 5
    assert not re.search(r"<script", text)


def test_missing_tables_are_named_in_the_report(tmp_path):
    rules = load_rules()
    few = synthetic_study("shuffled", formulas=2, hidden=8, clauses=4)
    study = study_of(tmp_path / "study", {"other": pd.DataFrame({"x": [1]})})
    write_report(study, judge(few.observations, rules=rules).values(), tmp_path / "new" / "report.html")
    page = Page((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))
    assert "nothing that is finished has 'nulls': there are other" in page.text
    assert "not enough data" in page.text
    assert "There is no folder tables" in words(page.text)


def test_an_unwritable_report_says_so_and_leaves_nothing(study, claims, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(pc.PrecodeFileError, match="cannot be written"):
        write_report(study, [claims["C1"]], tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
