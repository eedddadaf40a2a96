"""What the notebook on the swarm's economy shows. All figures here are made up."""

import json
import re
from pathlib import Path

import pytest

from shoestring.errors import BadRunError, BadValueError
from shoestring.report.economy_claims import ECONOMY_CLAIMS
from shoestring.report.economy_figures import (
    bound_figure,
    cheat_figure,
    front_figure,
    owed_figure,
)
from shoestring.report.economy_page import EconomyPage
from shoestring.report.economy_simulated import (
    answers_table,
    attacks_table,
    day_facts,
    day_figure,
    found_table,
    income_figure,
    income_table,
)
from shoestring.report.economy_tables import (
    BENCHMARKS,
    EMPTY,
    bill_table,
    book_facts,
    book_table,
    entries_table,
    flipped_table,
    forged_table,
    receipt_facts,
    sessions_table,
    windows_table,
)
from shoestring.report.economy_trade import (
    WITHIN,
    audit_facts,
    cheats_table,
    front_table,
    honest_facts,
    judged_table,
    quotes_table,
    reasons_table,
    requests_table,
    routing_table,
)
from shoestring.report.html import render_html
from shoestring.report.notebook import execute_notebook, find_notebook
from shoestring.report.tabular import html_text

ROOT = Path(__file__).parents[2]
USER, ONE, TWO = (letter * 52 for letter in "abc")
ROOTS = ["1" * 64, "2" * 64]


def _result(name, **figures):
    cpu = {"model": "A Processor", "cores_usable": 2.0, "cores_logical": 2}
    machine = {"platform": "local", "os": "Linux", "cpu": cpu, "memory_bytes": 8 * 2**30}
    return {
        "schema_version": 1, "benchmark": name, "measured_utc": "2026-05-06T07:08:09Z",
        "machine": machine | {"gpus": []}, "load_average_1min": 0.5,
        "versions": {"shoestring": "0.1.0", "python": "3.11.7"}, **figures,
    }  # fmt: skip


def _session(node, peer, layers, *, ins, outs, price):
    windows = [
        {"window": number, "step": 16 * (number + 1), "steps": 16 * (number + 1),
         "micro": price * (number + 1),
         "tokens_in": 70, "tokens_out": 16 * number, "frames": 9, "bytes_in": 1, "bytes_out": 1,
         "in_root": ins[number], "out_root": outs[number], "prev": "3" * 64, "digest": "4" * 64}
        for number in range(2)
    ]  # fmt: skip
    return {"node": node, "peer": peer, "session": "5" * 16, "layers": layers, "price_in": 10,
            "price_out": 20, "same_at_both_ends": node == "node1", "kept_by_user": 2,
            "kept_by_node": 2, "windows": windows}  # fmt: skip


def _bill(micros):
    lines = [{"node": peer, "layers": 9, "tokens_in": 70, "tokens_out": 32, "price_in": 10,
              "price_out": 20, "micro": micro}
             for peer, micro in zip((ONE, TWO), micros, strict=True)]  # fmt: skip
    return {"micro": sum(micros), "lines": lines}


def _route(micro, tpot_s):
    return {"micro": micro, "tpot_s": tpot_s, "ttft_s": 1.0, "above": 0.0,
            "hops": [{"node": "n01", "layers": 20, "micro": micro}]}  # fmt: skip


def _asked(name, route, because=None):
    why = {"n02": "dearer: any route with it is at least 5 % dearer",
           "n03": "dearer: any route with it is at least 7 % dearer",
           "n04": "dominated by n01: as cheap, as fast, and as many layers"}  # fmt: skip
    return {"asked": name, "max_micro": 700, "max_tpot_s": 0.1, "least_trust": 0.5,
            "prefer": "price", "route": route, "none_because": because,
            "not_taken": why}  # fmt: skip


@pytest.fixture
def economy():
    """Figures of two sessions, one bill, a small market and a cheat."""
    line = {"by_client": "6" * 128, "receipt": {"terms": {"client": USER, "node": ONE},
                                               "in_root": EMPTY, "step": 7}}  # fmt: skip
    return _result(
        "swarm-economy",
        bars=[{"bar": "forgeries taken", "value": 0, "sense": "at most", "limit": 0, "met": True}],
        receipts={
            "user": USER, "same_text": True, "windows_compared": 2,
            "sessions": [
                _session("node1", ONE, [0, 9, False], ins=[EMPTY] * 2, outs=ROOTS, price=700),
                _session("node2", TWO, [10, 17, True], ins=ROOTS, outs=ROOTS, price=900),
            ],
            "example": {"line": json.dumps(line), "bytes": 1179},
        },
        flipped=[{"field": "step", "flipped": 8, "refused": 8, "by": {"form": 3, "signature": 5}},
                 {"field": "at_s", "flipped": 16, "refused": 15, "by": {"form": 15, "nothing": 1}}],
        forged=[{"who": "node", "what": "bills more", "reason": f"no good signature of {USER}"},
                {"who": "both", "what": "lie together", "reason": None}],
        bills={"before": _bill([1500, 2000]), "after": _bill([1400, 1800])},
        ledger={
            "entries": [{"number": 1, "kind": "capture", "sha256": ROOTS[1], "previous": ROOTS[0],
                         "postings": [["held:user:answer-1", -3200], ["income:node1", 1400],
                                      ["income:node2", 1800]]}],
            "balances": {"user": 10}, "refused": [{"what": "twice", "reason": "booked before"}],
            "verified": {"entries": 1, "fault": None},
            "changed": {"entries": 0, "fault": {"entry": 1, "what": "its hash is wrong"}},
        },
        market={
            "seed": 1, "layers": 32, "prompt_tokens": 512, "output_tokens": 256,
            "sellers": [{}] * 4, "front": [_route(600, 0.4), _route(9000, 0.05)],
            "at_random": [{"micro": 3000, "tpot_s": 0.2}],
            "asked": [_asked(WITHIN, _route(650, 0.09)), _asked("nothing", None, "raise it")],
            "quotes_refused": [{"what": "changed", "reason": f"not signed by {ONE}"}],
        },
        audit={
            "how": {"audited_share": 0.25, "wrong_share_of_answers": 0.15, "wrong_by": 0.001},
            "answered": {"node0": [[0.0, False], [1.0, True]], "node1": [[2.5, False]]},
            "windows": [{"at_s": 0.0, "drawn": False}, {"at_s": 0.9, "drawn": True},
                        {"at_s": 2.2, "drawn": False}],
            "judged": [{"at_s": 0.5, "who": "node0", "what": "audited", "why": "as node2 answers"},
                       {"at_s": 2.0, "who": "node0", "what": "cheats", "why": "answer 0"},
                       {"at_s": 3.0, "who": "node1", "what": "audited", "why": "as node2"}],
            "cheats_from_s": 1.0, "excluded": ["node0"],
            "evidence": [{"node": "node0", "first": "result_output", "signed_by_node": True}],
            "owed_micro": {"node0": 50, "node1": 60}, "payable_micro": {"node1": 60},
            "trust": {"node0": 0.4}, "windows_until_found": {"0.99": 37},
            "wrong_share_of_windows": 0.48,
        },
        wrong_count={"signed": 0, "disputes": ["tokens_out 1 there, 0 here"]},
    )  # fmt: skip


@pytest.fixture
def audit():
    """Figures of one kind of cheat, of a campaign, and of honest nodes."""
    apart = {"windows_differing": 2, "windows_beyond_the_tolerance": 1,
             "relative": {"median": 0.1}}  # fmt: skip
    never = {"windows_differing": 0, "windows_beyond_the_tolerance": 0, "relative": None}
    cheat = {"kind": "wrong output", "model": "tiny-1.gguf", "windows": 9, "wrong": 4, "found": 4,
             "right_but_called_wrong": 0, "answers_apart": apart}  # fmt: skip
    campaign = {"audited_share": 0.05, "wrong_share": 1.0, "campaigns": 500,
                "mean_by_formula": 20.0, "windows_95": 59, "unseen_after_95": 0.05,
                "windows_99": 90, "unseen_after_99": 0.01}  # fmt: skip
    honest = {"audits": 300, "whole": {"audits": 50, "excluded": 0},
              "again": {"audits": 250, "differing": 0}}  # fmt: skip
    bar = {"bar": "honest nodes excluded", "value": 0, "sense": "at most", "limit": 0, "met": True}
    return _result("swarm-audit", bars=[bar], bound=[campaign], honest=honest,
                   cheats=[cheat, cheat | {"answers_apart": never}])  # fmt: skip


@pytest.fixture
def routing():
    """Figures of one kind of request that always finds a route, and of one that never does."""
    kind = {"way": "star", "kind": "cheapest", "requests": 8, "without_route": 0,
            "processor_s": {"median": 0.02, "worst": 0.09}, "above": {"median": 0.01},
            "hops": {"median": 5.0}}  # fmt: skip
    never = kind | {"without_route": 8, "above": None, "hops": None}
    return _result("swarm-routing", how={"sellers": 10_000, "layers": 80}, kinds=[kind, never])


def _outcome(million_micro):
    times = {"mean": 1.0, "p10": None, "median": 1.0, "p90": None, "p99": None}
    group = {"asked": 100, "served_share": 0.9, "wrong_share": 0.01, "request_micro": times,
             "million_tokens_micro": million_micro, "ttft_s": times, "tpot_s": times, "hops": 3.0,
             "near_share": None}  # fmt: skip
    earned = {"nodes": 5, "micro": 4_000_000, "micro_an_hour": 2_000.0}
    cheats = {"0.05": {"cheats": 8, "found": 7, "windows_for_each_found": 625.0,
                       "bound_windows": 1000.0, "earned_micro": 431_301}}  # fmt: skip
    return {
        "scenario": {"nodes": 5_000, "requests": 100, "hours": 24, "seed": 1},
        "all": group, "unserved": {"limits": 10}, "saved_nodes": 3,
        "by_model": {"a": group}, "by_profile": {"cheap": group}, "by_place": {"at home": group},
        "victims": group,
        "income": {"gini_nodes": 0.8, "jain_nodes": 0.1, "richest_tenth_share": 0.7,
                   "by_device": {"a card": earned, "off": earned | {"micro_an_hour": None}},
                   "by_region": {"east": earned}, "by_place": {"at home": earned}},
        "audits": {"audit_share": 0.02, "honest_excluded": 0, "false_alarms": 0.0003,
                   "cheats": cheats},
        "routing": {"above_exact": times},
        "ledger": {"entries": 300, "right": True, "fault": "", "sum_micro": 0},
        "series": {"bin_s": 3600, "asked": [60, 40], "nodes": [10, 11],
                   "paid_micro": [4000, 0], "tokens": [100, 0],
                   "ttft_median_s": [1.0, None], "tpot_median_s": [0.3, None]},
    }  # fmt: skip


@pytest.fixture
def simulation():
    """Figures of a day and of one attack."""
    runs = {name: {"outcome": _outcome(micro)} for name, micro in
            (("none", 30_000_000), ("eclipse", 60_000_000))}  # fmt: skip
    return _result(
        "swarm-simulation", bars=[], attacks=runs,
        day={"cpu_s": 100.0, "wall_s": 110.0, "outcome": _outcome(30_000_000)},
        gains_credits={"eclipse": {"without": 1.0, "with": -2.0}},
    )  # fmt: skip


@pytest.fixture
def folder(economy, audit, routing, simulation, tmp_path):
    """A folder with these files, and without the others."""
    found = tmp_path / "measured"
    found.mkdir()
    for figures in (economy, audit, routing, simulation):
        (found / f"{figures['benchmark']}.json").write_text(json.dumps(figures))
    return found


def _run_notebook(folder, tmp_path):
    executed, page = tmp_path / "x.ipynb", tmp_path / "x.html"
    notebook = find_notebook("06_swarm_economy")
    execute_notebook(notebook, executed, {"measured": str(folder)}, progress=False)
    render_html(executed, page)
    return page.read_text()


def _column(table, key):
    place = [column.key for column in table.columns].index(key)
    return [row[place] for row in table.rows]


def test_the_notebook_shows_all_figures_and_needs_nothing_from_elsewhere(folder, tmp_path):
    """Executed and rendered: whole, our title, every figure drawn, no link to another place."""
    text = _run_notebook(folder, tmp_path)

    assert "INCOMPLETE" not in text
    assert "Layers for sale" in text
    for name in ("owed", "front", "cheat", "bound", "day", "income"):
        assert f'<figure id="economy_{name}">' in text
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", text)
    assert "benchmarks/swarm_ledger.py was not run" in text


def test_what_was_not_measured_is_said_and_the_page_is_whole(tmp_path):
    """With an empty folder each part names the benchmark that was not run."""
    (tmp_path / "nothing").mkdir()
    text = _run_notebook(tmp_path / "nothing", tmp_path)

    assert "INCOMPLETE" not in text
    for name in BENCHMARKS:
        assert f"Not measured: benchmarks/{name.replace('-', '_')}.py was not run" in text


def test_a_folder_or_file_that_is_none_is_refused(folder):
    """A path that is not there; a file of another benchmark."""
    with pytest.raises(BadValueError, match="no such folder"):
        EconomyPage("/nowhere")
    (folder / "swarm-audit.json").write_text('{"benchmark": "clock"}')
    with pytest.raises(BadRunError, match="no result of swarm-audit"):
        EconomyPage(str(folder))


def test_each_table_names_its_file_day_and_machine(economy, audit, routing, simulation):
    """In its title, so that none stands without."""
    tables = [
        *(of(economy) for of in (
            sessions_table, windows_table, flipped_table, forged_table, bill_table, entries_table,
            book_table, front_table, requests_table, reasons_table, quotes_table, judged_table)),
        cheats_table(audit), routing_table(routing),
        *(of(simulation) for of in (answers_table, income_table, found_table, attacks_table)),
    ]  # fmt: skip
    for table in tables:
        assert re.search(r"\(swarm-\w+\.json, 2026-05-06, A Processor, 2 cores\)$", table.title)
        assert table.rows
        assert html_text(table)


def test_receipts_that_differ_at_the_two_ends_are_said_to(economy):
    """The second session's does."""
    table = sessions_table(economy)

    assert _column(table, "same") == ["the same", "differ"]
    assert _column(table, "layers") == ["0 to 9", "10 to 17, output"]
    assert _column(table, "owed_micro") == [1400, 1800]


def test_windows_of_two_nodes_stand_side_by_side_where_steps_agree(economy):
    """Roots beside each other; where the other has no such window, nothing."""
    economy["receipts"]["sessions"][1]["windows"][1]["step"] = 99

    table = windows_table(economy)

    assert _column(table, "out_root") == ["1111111111...", "2222222222..."]
    assert _column(table, "in_root") == ["1111111111...", ""]
    assert _column(table, "owed_last") == [900, None]


def test_two_windows_that_were_closed_after_the_same_step_stay_apart(economy):
    """As the last one is, when llama-server hangs up."""
    for one in economy["receipts"]["sessions"]:
        one["windows"][1]["step"] = one["windows"][0]["step"]

    table = windows_table(economy)

    assert _column(table, "in_root") == ["1111111111...", "2222222222..."]
    assert _column(table, "owed_last") == [900, 1800]


def test_a_receipt_is_told_with_names_and_short_digests(economy):
    """Peer ids are nobody's to remember; the root of nothing is called so."""
    facts = dict(receipt_facts(economy))

    assert facts["by_client"] == "6666666666..."
    assert facts["receipt.terms.client"] == "the user"
    assert facts["receipt.terms.node"] == "node1"
    assert facts["receipt.in_root"] == "nothing"
    assert facts["receipt.step"] == "7"


def test_a_bit_that_was_taken_is_counted(economy):
    """In the title and in its row."""
    table = flipped_table(economy)

    assert ": 23 of 24 refused" in table.title
    assert _column(table, "by") == ["signature 5, form 3", "form 15, nothing 1"]


def test_a_forgery_that_nothing_shows_is_said_to_be_taken(economy):
    """Two that lie together; the other answer names who did not sign."""
    assert _column(forged_table(economy), "reason") == [
        "refused: no good signature of the user", "taken: nothing shows it",
    ]  # fmt: skip
    assert _column(quotes_table(economy), "reason") == ["refused: not signed by bbbbbbbbbb..."]


def test_the_bill_adds_up_before_and_after(economy):
    """Each node's line, and all together."""
    table = bill_table(economy)

    assert _column(table, "node") == ["node1", "node2", "together"]
    assert _column(table, "held_micro") == [1500, 2000, 3500]
    assert _column(table, "paid_micro") == [1400, 1800, 3200]


def test_an_entry_tells_who_gives_and_who_gets(economy):
    """With each one's part where there are several."""
    table = entries_table(economy)

    assert _column(table, "from") == ["held:user:answer-1"]
    assert _column(table, "to") == ["income:node1 1\u202f400, income:node2 1\u202f800"]
    assert _column(table, "micro") == [3200]


def test_a_changed_book_is_told_with_its_first_wrong_entry(economy):
    """And the whole one without any."""
    facts = dict(book_facts(economy))

    assert facts["the book"] == "1 entries are right"
    assert facts["with an entry changed on disk"].endswith("entry 1: its hash is wrong")


def test_a_request_without_a_route_says_why(economy):
    """In the place of nodes; no price, and no zero."""
    table = requests_table(economy)

    assert _column(table, "hops") == ["n01 (20)", "raise it"]
    assert _column(table, "micro") == [650, None]
    assert "at most 700 micro-credits, at most 100\u00a0ms a token" in _column(table, "limits")[0]


def test_reasons_are_counted_by_kind(economy):
    """The most frequent first, each with an example."""
    table = reasons_table(economy)

    assert [row[:2] for row in table.rows] == [("dearer", 2), ("dominated", 1)]
    assert _column(table, "example")[1].startswith("n04: dominated by n01")


def test_the_cheat_is_told_with_what_it_is_not_paid(economy):
    """When it was found, and what of its receipts is payable."""
    facts = dict(audit_facts(economy))

    assert facts["found after its first wrong answer"] == "1\u00a0s"
    assert facts["excluded"] == "node0"
    assert facts["evidence that the node signed itself"] == "1 of 1"
    assert facts["payable, of what receipts say (micro-credits)"] == "node0 0 of 50, node1 60 of 60"
    assert _column(judged_table(economy), "what") == ["the same", "a cheat"]


def test_who_was_never_found_has_no_verdict(economy):
    """The figure is drawn to the end, and the facts have a dash."""
    economy["audit"] |= {"judged": [], "excluded": [], "evidence": []}

    facts = dict(audit_facts(economy))

    assert facts["excluded"] == "nobody"
    assert facts["evidence that the node signed itself"] == "0 of 0"
    assert facts["found after its first wrong answer"] == "\N{EM DASH}"
    assert judged_table(economy).rows == ()
    assert cheat_figure(economy).figure is not None


def test_figures_say_what_they_show(economy, audit, simulation):
    """In words, for who does not see them."""
    assert "node1: 2 receipts, 1\u202f400 micro-credits owed of 1\u202f500 held" in (
        owed_figure(economy).text
    )
    assert "2 routes from 600 micro-credits and 400\u00a0ms a token" in front_figure(economy).text
    assert "node0 1 of 2 answers changed" in cheat_figure(economy).text
    assert "after 90 windows 99 % found, 99 % by the bound" in bound_figure(audit).text
    assert "a million tokens (credits): 40 to 40" in day_figure(simulation).text
    assert "attackers got 1 credits without and -2 with it" in " ".join(
        income_figure(simulation).text.split()
    )


def test_what_is_changed_by_the_cheat_stands_out(economy):
    """A mark for each changed answer and a line where the cheat is found."""
    axes = cheat_figure(economy).figure.axes[0]
    at_s = [line.get_xdata() for line in axes.lines if line.get_zorder() == 4]

    assert [list(one) for one in at_s if len(one)] == [[1.0]]
    assert any(list(line.get_xdata()) == [2.0, 2.0] for line in axes.lines)


def test_a_campaign_that_was_left_out_is_no_figure(audit):
    """It says so."""
    audit["bound"] = []

    assert bound_figure(audit).figure is None


def test_a_cheat_that_changed_nothing_has_no_share(audit):
    """Of no differing window; a dash, and no zero."""
    assert _column(cheats_table(audit), "tolerance") == [0.5, None]
    assert dict(honest_facts(audit))["audits of honest nodes"] == "300"


def test_a_kind_of_request_that_finds_no_route_has_no_nodes(routing):
    """A dash in its place."""
    assert _column(routing_table(routing), "hops") == [5.0, None]


def test_attacks_stand_beside_the_day_without_them(simulation):
    """Gains where there are two runs, victims where somebody is singled out."""
    table = attacks_table(simulation)

    assert _column(table, "gain_with") == [None, -2.0]
    assert _column(table, "victims_micro") == [None, 60_000_000]
    assert dict(day_facts(simulation))["requests not served"] == "limits 10"


def test_a_book_that_is_not_right_is_said_to_be(simulation):
    """With its fault."""
    simulation["day"]["outcome"]["ledger"] |= {"right": False, "fault": "entry 7"}

    assert "NOT right: entry 7" in dict(day_facts(simulation))["the book"]


def test_every_claim_names_tests_that_exist():
    """Each is a function of a test file or a page, and each claim has at least one."""
    for claim in ECONOMY_CLAIMS:
        assert claim.tests
        for named in claim.tests:
            path, _, function = named.partition("::")
            if path.startswith("docs/"):
                assert (ROOT / path).is_file(), named
            else:
                assert f"def {function}(" in (ROOT / "tests" / path).read_text(), named
