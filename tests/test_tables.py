"""Tables, verdicts, intervals and corrections, compared with values computed by hand."""

import itertools
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scripts.records.errors import UserError
from scripts.reporting.cells import Table
from scripts.reporting.collect import load, with_swept
from scripts.reporting.corrupted import kinds
from scripts.reporting.experiments import sweep_size
from scripts.reporting.finalists import best_of_rates
from scripts.reporting.goal import goal, goal_studies
from scripts.reporting.note import (
    METRICS,
    NOTE_VALUES,
    interval_half_width,
    pass_probability,
    probability_all_reproduced,
    verdict,
)
from scripts.reporting.published import comparison
from scripts.reporting.render import latex, markdown, narrow, show
from scripts.reporting.sources import runs_behind, runs_of_row
from scripts.reporting.statistics import differences, groups, holm, t_interval
from scripts.reporting.studies import Declaration, baseline_of, declared, studies
from scripts.reporting.style import STYLES, label_of, short, style_of
from scripts.reporting.tables import by_epoch, grid, tables
from scripts.running.plan import plan
from tests.conftest import REPOSITORY
from tests.made_up import EXACT, curves, gains, results, runs, study

RESULTS = REPOSITORY / "results"


def made(*frames, **more) -> dict[str, pd.DataFrame]:
    return {name: t.frame for name, t in tables(studies(results(*frames, **more))).items()}


def test_a_variant_meets_the_goal_if_both_means_and_both_intervals_are_high_enough(tmp_path):
    lion = [0.040, 0.050, 0.060]

    def line(ndcg, hr):
        pairs = {"lion": (lion, lion), "simba": (hr, ndcg)}
        made_up = {
            name: [(*pair, 0.5) for pair in zip(*both, strict=True)] for name, both in pairs.items()
        }
        (row,) = goal(studies(results(runs(made_up))), tmp_path).frame.to_dict("records")
        return row

    higher = [1.001 * x for x in lion]
    row = line(higher, higher)
    assert (row["optimizer"], row["n"], row["goal"]) == ("Simba", "3", "met")
    assert row["NDCG@10"] == row["HR@10"] == "100.1% [100.1, 100.1]"
    noisy = [0.039, 0.052, 0.061]  # 101.3%, but its interval begins at 93.7%
    assert line(noisy, higher)["goal"] == line(higher, noisy)["goal"] == "mean only"
    lower = [0.98 * x for x in lion]
    assert line(lower, higher)["goal"] == line(higher, lower)["goal"] == "no"
    assert line(higher[:2], higher[:2])["goal"] == "mean only"  # two seeds have no interval


def test_the_goal_takes_only_studies_with_the_answering_lion_as_baseline():
    lion = runs({"lion": [(0.06, 0.04, 0.5)]}, "ablation")
    ours = [
        runs({o: [(0.06, 0.04, 0.5)]}, experiment)
        for o, experiment in {
            "ternary_lion_ef_lasting": "lasting",  # its Lion is that of ablation
            "lion": "own_rates_500",  # compared with two bytes
            "lion_8bit": "causes",  # has another Lion
        }.items()
    ]
    found = [study.experiment for study in goal_studies(studies(results(lion, *ours)))]
    assert found == ["ablation", "lasting"]


def test_the_rule_of_the_verdicts():
    ours = pd.Series([0.9, 1.0, 1.1])  # std 0.1; two standard errors are 0.2 * sqrt(4 / 3) = 0.2309
    assert verdict(ours, 1.23, same_rank=False) == "reproduced"
    assert verdict(ours, 0.77, same_rank=True) == "reproduced"
    assert verdict(ours, 1.24, same_rank=True) == "same rank"
    assert verdict(ours, 0.76, same_rank=False) == "not reproduced"
    assert verdict(ours[:1], 0.9, same_rank=True) is None
    assert interval_half_width(ours) == pytest.approx(4.3027 * 0.1 * (4 / 3) ** 0.5, rel=1e-4)
    assert interval_half_width(ours[:1]) is None


def test_how_often_the_rule_passes_one_more_run():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 6))
    for off in (0.0, 3.0):
        ours, more = draws[:, :5], draws[:, 5] + off
        distance = abs(more - ours.mean(1)) / (ours.std(1, ddof=1) * (1 + 1 / 5) ** 0.5)
        assert pass_probability(5, off) == pytest.approx(np.mean(distance <= 2), abs=0.01)
    assert pass_probability(5) == pytest.approx(0.884, abs=1e-3)


def test_a_replicate_passes_all_three_figures_less_often_than_one():
    rng = np.random.default_rng(1)
    values = {o: [tuple(rng.normal(size=3)) for _ in range(5)] for o in NOTE_VALUES}
    independent = probability_all_reproduced(runs(values))
    assert independent == pytest.approx(pass_probability(5) ** 3, abs=0.03)
    correlated = {o: [(x, x + 1e-3 * y, x) for x, y, _ in rows] for o, rows in values.items()}
    for rows in correlated.values():
        rows[:] = [(a, b, c + 1e-3 * rng.normal()) for a, b, c in rows]
    assert probability_all_reproduced(runs(correlated)) == pytest.approx(
        pass_probability(5), abs=0.01
    )


def test_a_variant_gets_the_worst_verdict_of_its_metrics():
    values = {o: [row, row] for o, (row,) in EXACT.items()}
    values["lion"] = [(0.0690, 0.0381, 0.145131), (0.0690, 0.0381, 0.145132)]
    values["simba"] = [(0.0195, 0.0094, 0.80)] * 2  # not reproduced, but still the highest loss
    values["sign_sgd"] = [(0.0420, 0.0213, 0.90)] * 2  # above Simba's
    rows = made(runs(values))["ablation-sasrec-beauty/metrics"].set_index("optimizer")
    assert rows.loc["Lion", "verdict"] == rows.loc["Simba + m", "verdict"] == "reproduced"
    assert rows.loc["Simba", "verdict"] == "not reproduced (Loss)"  # sign-SGD has its rank
    assert rows.loc["sign-SGD", "verdict"] == "not reproduced (Loss)"
    assert rows.loc["Lion", "HR@10 note"] == rows.loc["Lion", "HR@10 ours"].split()[0] == "0.0690"
    values["sign_sgd"] = [(0.0420, 0.0213, 0.70)] * 2
    frames = made(runs(values))
    rows = frames["ablation-sasrec-beauty/metrics"].set_index("optimizer")
    assert rows.loc["Simba", "verdict"] == "same rank (Loss)"
    figures = frames["note_1"]
    line = figures[(figures["optimizer"] == "Simba") & (figures["metric"] == "Loss")].iloc[0]
    assert (line["ours − note"], line["verdict"]) == ("-0.0730", "same rank")
    order = frames["order"].iloc[0]
    assert order["by NDCG@10 on test"].startswith("Lion > Simba + m > Simba + (c = m) > sign-SGD")
    assert (order["sign(m) on top"], order["Kendall's tau"]) == ("yes", "1.00")
    assert order["p"] == "0.003"  # 2 of 6! orders


def test_the_note_is_compared_by_the_lowest_loss():
    values = {o: [row, row] for o, (row,) in EXACT.items()}
    frame = runs(values).assign(**{"train/loss": 9.0})
    rows = made(frame)["ablation-sasrec-beauty/metrics"].set_index("optimizer")
    assert rows.loc["Lion", "Loss ours"] == "0.1451 ± 0.0000"


@pytest.mark.parametrize(
    "other", [{"experiment": "short"}, {"dataset": "toys"}, {"epochs": 10}, {"lr": 1e-3}]
)
def test_only_runs_in_the_notes_setting_are_compared_with_its_figures(other):
    frames = made(runs(EXACT, **other))
    assert not any("note_" in name for name in frames)
    assert not any("verdict" in frame.columns for frame in frames.values())


def test_a_users_own_sweep_has_a_line_for_each_swept_value():
    """Each optimizer has its own decay, only Simba has a window, and a seed is missing."""
    lion = runs({"lion": [(0.1, 0.05, 0.3)] * 2}, "single", dataset="NA", weight_decay=0.5)
    adamw = runs({"adamw": [(0.2, 0.06, 0.2)]}, "single", dataset="NA", weight_decay=0.05)
    window = "optimizer.window_size"
    windows = [
        runs({"simba": [(0.1, 0.04, 0.5)]}, "single", dataset="NA", swept=f"window_size {w}")
        for w in (50, 100)
    ]
    for frame, w in zip(windows, (50, 100), strict=True):
        frame[window] = w
    rows = made(lion, adamw, *windows)["single-sasrec-NA/metrics"]
    assert rows["optimizer"].tolist() == ["Lion", "Simba", "Simba", "AdamW"]
    assert rows["window_size"].tolist() == ["–", "50", "100", "–"]
    assert rows["n"].tolist() == ["2", "1", "1", "1"]
    assert rows["Loss"].tolist() == ["0.3000 ± 0.0000", "0.5000", "0.5000", "0.2000"]


def test_each_optimizer_at_its_best_rate_by_validation():
    """Lion is best at 1e-3, inside its rates; sign-SGD at 3e-4, its highest."""
    frames = []
    for optimizer, lr, valid, ndcg in [
        ("lion", 3e-4, 0.03, 0.9),
        ("lion", 1e-3, 0.05, 0.4),
        ("lion", 3e-3, 0.04, 0.8),
        ("sign_sgd", 1e-4, 0.02, 0.9),
        ("sign_sgd", 3e-4, 0.04, 0.3),
    ]:
        values = {optimizer: [(0.5, ndcg, 1.0), (0.5, ndcg + 0.1, 1.0), (0.5, ndcg + 0.2, 1.0)]}
        frames.append(runs(values, "mine", lr=lr, swept=f"lr {lr}", **{"valid/NDCG@10": valid}))
    lines = curves(
        pd.concat(frames),
        epochs=(1, 2, 3),
        # sign-SGD never has 95% of 0.05; the curves of the other rates do not count
        valid=lambda run, epoch: epoch / 60 if run["lr"] == 1e-3 else 0.04,
    )
    best = made(*frames, lines=lines)["mine-sasrec-beauty/best"].set_index("optimizer")
    assert best["lr"].tolist() == ["1e-3", "3e-4"]  # Lion, sign-SGD
    assert best["at the edge"].tolist() == ["no", "lr"]
    assert best["NDCG@10 on validation"].tolist() == ["0.0500", "0.0400"]
    assert best["NDCG@10"].tolist() == ["0.5000 ± 0.1000", "0.4000 ± 0.1000"]
    assert best["NDCG@10, difference"].tolist() == ["–", "-0.1000 [-0.1000, -0.1000]"]
    assert best["epochs to 95%"].tolist() == ["3", "–"]
    only = made(*frames[3:], lines=lines)["mine-sasrec-beauty/best"]
    assert only.columns.tolist()[-1] == "n"  # without a baseline there is nothing to compare with
    assert "single-sasrec-beauty/best" not in made(runs({"lion": [(1, 1, 1)]}, "single"))


def test_a_missing_variant_is_a_line_without_figures():
    values = {o: rows for o, rows in EXACT.items() if o != "simba"}
    rows = made(runs(values, "short"))["short-sasrec-beauty/metrics"].set_index("optimizer")
    assert rows.loc["Simba"].tolist() == ["–", "–", "–", "–", "0", "–"]
    assert not {"rank", "note's rank"} & set(rows.columns)


def test_a_grid_is_ranked_by_valid_and_says_where_it_ends():
    rates = [
        runs(EXACT, "mine", lr=lr, swept=f"lr {short(lr)}", **{"valid/NDCG@10": valid})
        for lr, valid in ((1e-4, 0.01), (3e-4, 0.02), (1e-3, 0.015))
    ]
    rates[2].loc[rates[2]["optimizer"] == "lion", "valid/NDCG@10"] = 0.03
    rates[2] = rates[2][rates[2]["optimizer"] != "sign_sgd"]  # the largest of its own two is best
    rates[1:] = [rate[rate["optimizer"] != "simba_eq1"] for rate in rates[1:]]  # one rate: no edge
    table = grid(study(*rates))
    lines = table.frame.set_index("optimizer")
    assert lines.columns.tolist() == ["lr 1e-4", "lr 3e-4", "lr 1e-3", "best"]
    assert lines.loc["Lion"].tolist() == ["0.0100", "0.0200", "0.0300", "1e-3, at the edge"]
    assert lines.loc["Simba"].tolist() == ["0.0100", "0.0200", "0.0150", "3e-4"]
    assert lines.loc["sign-SGD"].tolist() == ["0.0100", "0.0200", "–", "3e-4, at the edge"]
    assert lines.loc["Simba + (1)"].tolist() == ["0.0100", "–", "–", "1e-4"]


def test_corrupted_gradients_are_compared_with_exact_ones():
    def of(corrupt, ndcg):
        values = {"lion": [(0.1, ndcg, 0.5)] * 2, "simba": [(0.1, 0.02, 0.5)]}
        return runs(values, "mine", corrupt=corrupt, swept=f"corrupt {corrupt}")

    frames = [of(None, 0.04), of("noise-3", 0.03), of("noise-0.5", 0.04), of("flip-0.1", 0.01)]
    only_lion = frames[1][frames[1]["optimizer"] == "lion"]
    frame = tables([study(frames[0], only_lion, *frames[2:])])[
        "mine-sasrec-beauty/corrupted_ndcg"
    ].frame
    assert frame.values.tolist() == [
        ["exact", "–", "0.0400", "0.0200", "2, 1"],
        ["flip", "0.1", "0.0100 (25%)", "0.0200 (100%)", "2, 1"],
        ["noise", "0.5", "0.0400 (100%)", "0.0200 (100%)", "2, 1"],
        ["noise", "3", "0.0300 (75%)", "–", "2"],
    ]
    assert frame.columns[2:4].tolist() == ["Lion", "Simba"]


def test_corruption_is_compared_over_equal_seeds_and_ends_with_the_strongest():
    def of(corrupt, *ndcg):
        values = {"lion": [(0.1, x, 0.5) for x in ndcg]}
        return runs(values, "mine", corrupt=corrupt, swept=f"corrupt {corrupt}")

    made_up = study(of(None, 0.04, 0.08), of("top-0.01", 0.02), of("top-0.1", 0.03))
    frame = tables([made_up])["mine-sasrec-beauty/corrupted_ndcg"].frame
    assert frame.values.tolist() == [
        ["exact", "–", "0.0600", "2"],
        ["top", "0.1", "0.0300 (75%)", "1"],  # of 0.04, which has the same seed
        ["top", "0.01", "0.0200 (50%)", "1"],
    ]
    (kind,) = kinds(made_up)
    assert kind.strengths == ["exact", "0.1", "0.01"]
    assert dict(zip(kind.runs["test/NDCG@10"], kind.runs["x"], strict=True)) == {
        0.04: 0,
        0.08: 0,
        0.03: 1,
        0.02: 2,
    }
    for _, line in frame.iterrows():
        behind = runs_of_row(made_up.runs, line)
        assert set(behind["corrupt"]) == {
            None if line["gradient"] == "exact" else f"top-{line['strength']}"
        }


def test_without_exact_runs_or_corrupted_ones_there_is_no_comparison():
    def of(corrupt, experiment="mine"):
        return runs({"lion": [(0.1, 0.02, 0.5)]}, experiment, corrupt=corrupt)

    (table,) = (t for n, t in tables([study(of("flip-0.1"))]).items() if n.endswith("_ndcg"))
    assert table.frame.values.tolist() == [["flip", "0.1", "0.0200", "1"]]
    made = tables(studies(results(of("flip-0.1"), of(None, "other"))))
    assert "other-sasrec-beauty/corrupted_ndcg" not in made


def test_tuning_chooses_by_valid_and_says_where_it_ends():
    def of(experiment, lr, decay, valid, ndcg):
        swept = f"lr {short(lr)}, weight_decay {decay}"
        return runs(
            {"lion": [(0.1, ndcg, 0.5)]},
            experiment,
            lr=lr,
            weight_decay=decay,
            swept=swept,
            **{"valid/NDCG@10": valid},
        )

    rates = [of("lr", lr, 0.5, v, 0.09) for lr, v in ((1e-4, 0.01), (3e-4, 0.02), (1e-3, 0.01))]
    decays = [of("tuning", 3e-4, decay, v, 0.04) for decay, v in ((0, 0.01), (1.5, 0.03))]
    found = studies(results(*rates, *decays, runs(EXACT)))
    (line,) = tables(found)["tuned"].frame.to_dict("records")
    assert line == {
        "optimizer": "Lion",
        "runs": "5",
        "lr": "3e-4",
        "decay": "1.5",
        "NDCG@10 on validation": "0.0300",
        "HR@10": "0.1000",
        "NDCG@10": "0.0400",
        "Loss": "0.5000",
        "at the edge": "decay",
    }
    (line,) = tables([s for s in found if s.experiment != "tuning"])["tuned"].frame.to_dict(
        "records"
    )
    assert (line["lr"], line["decay"], line["at the edge"]) == ("3e-4", "0.5", "decay")
    higher = of("tuning", 5e-4, 1.5, 0.04, 0.04)  # 1e-3 was tried, but not with this decay
    found = studies(results(*rates, *decays, higher, runs(EXACT)))
    (line,) = tables(found)["tuned"].frame.to_dict("records")
    assert (line["lr"], line["decay"], line["at the edge"]) == ("5e-4", "1.5", "lr, decay")


def test_tuning_shows_every_key_that_it_swept():
    def of(betas, valid):
        more = {"optimizer.betas": betas, "valid/NDCG@10": valid}
        return runs(
            {"lion": [(0.1, 0.02, 0.5)]}, "tuning", swept=f"optimizer.betas {betas}", **more
        )

    found = studies(results(of("[0.9, 0.99]", 0.01), of("[0.95, 0.98]", 0.02), runs(EXACT)))
    (line,) = tables(found)["tuned"].frame.to_dict("records")
    assert (line["runs"], line["betas"]) == ("2", "[0.95, 0.98]")


def test_missing_seeds_of_many_variants_are_one_text():
    rates = [runs(EXACT, "mine", lr=lr, swept=f"lr {lr:g}") for lr in (1e-4, 3e-4)]
    more = runs({"lion": EXACT["lion"] * 2}, "mine", lr=1e-3, swept="lr 0.001")
    (made_up,) = studies(results(*rates, more))
    assert made_up.missing_runs_text == "12 variants, such as lion, lr 0.0001, with seed 1"
    (made_up,) = studies(results(runs({"simba": EXACT["simba"]}, "mine"), more))
    assert made_up.missing_runs_text == "simba with seed 1"


def test_the_table_of_settings_counts_the_metrics_that_a_setting_reproduces():
    def values(shift, spread=0.0, optimizers=NOTE_VALUES):
        return {
            o: [(row.hr, row.ndcg, row.loss + shift + sign * spread) for sign in (-1, 1)]
            for o, row in NOTE_VALUES.items()
            if o in optimizers
        }

    # The bound for two runs is 2 * 0.002 * sqrt(2) * sqrt(1.5) = 0.0069, that for one run is
    # 2 * 0.002 * sqrt(2) * sqrt(2) = 0.0080.
    base = runs(values(0.02, 0.002))
    near = runs(values(0.006, optimizers=("lion", "simba")), "search_no_decay")
    one = runs(values(0.0075, optimizers=("lion", "simba")), "search_window_100")
    one = one[one["seed"] == 0]
    far = runs(values(0.5), "search_lr_3e-4")
    elsewhere = runs(values(0.0), "search_no_decay", dataset="toys")
    frames = made(base, near, one, far, elsewhere)
    lines = frames["settings"][frames["settings"]["metric"] == "Loss"].set_index("setting")
    assert lines.loc["note", "Lion"] == "0.1451"
    assert lines.loc["ablation", "Simba"] == "0.8930"
    assert lines.loc["search_no_decay", "Simba + m"] == "–"
    assert lines["reproduced"].to_dict() == {
        "note": "",
        "ablation": "0 of 6",
        "search_no_decay": "2 of 6",
        "search_window_100": "2 of 6",
        "search_lr_3e-4": "0 of 6",
        "ablation, last epoch": "0 of 6",
        "ablation, epoch 200": "0 of 6",
    }
    assert lines.loc["search_window_100", "n"] == "1"
    assert lines.loc["ablation", "n"] == "2"
    assert not any("settings" in name for name in frames if "/" in name)


def test_along_the_curve_differences_are_relative_to_the_baseline():
    values = {"lion": [(0.1, 0.1, 0.1)] * 5, "simba": [(0.1, 0.1, 0.1)] * 5}
    frame = runs(values, "mine")
    loss = {"lion": 1.0, "simba": 1.1}

    def loss_of(run, epoch):
        return loss[run["optimizer"]] + 0.01 * run["seed"] * (run["optimizer"] == "simba")

    lines = curves(frame, epochs=(60, 100), loss=loss_of)
    table = by_epoch(study(frame, lines=lines)).frame
    cell = table.set_index("difference of").loc["training loss", "epoch 60"]
    d = 100 * (0.1 + 0.01 * np.arange(5))
    low, high = stats.t.interval(0.95, 4, d.mean(), stats.sem(d))
    assert cell == f"{d.mean():+.1f}% [{low:+.1f}, {high:+.1f}]"
    valid = table.set_index("difference of").loc["validation NDCG@10", "epoch 100"]
    assert valid == "0.0% [0.0, 0.0]"  # no sign
    assert by_epoch(study(frame[frame["seed"] < 4], lines=lines)) is None


def test_one_run_has_one_record():
    frame = runs(EXACT)
    twice = pd.concat([frame, frame[:1].assign(record="b.json")])
    with pytest.raises(UserError, match=r"one run, two records .*b.json"):
        studies(results(twice))


def test_moves_are_those_of_the_last_diagnosed_epoch():
    start = {"experiment": "ablation", "model": "sasrec", "dataset": "beauty", "optimizer": "lion"}
    lines = [
        {"seed": seed, "epoch": epoch, "quantity": "memory", "part": "items"}
        | {"value": 0.5 * (epoch == 20) + 0.1 * seed}
        for epoch in (10, 20)
        for seed in (0, 1)
    ]
    lines += [
        {"seed": seed, "epoch": 20, "quantity": quantity, "part": part, "value": value}
        for seed in (0, 1)
        for quantity, parts, value in (("path", "12345", 0.9), ("agreement", ["items"], 0.7))
        for part in parts
    ]
    diagnostics = pd.DataFrame([start | line for line in lines])
    table = made(runs(EXACT), diagnostics=diagnostics)["ablation-sasrec-beauty/moves"]
    assert table["optimizer"].tolist() == ["Lion"]
    assert (table["move by memory"][0], table["mean abs(s)/w"][0]) == ("55%", "–")
    assert (table["move against Lion"][0], table["do not move"][0]) == ("20%", "10%")


def test_intervals_and_corrections():
    values = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    low, high = t_interval(values)  # t(4) = 2.7764; std 0.5477
    assert (low, high) == pytest.approx((0.6 - 2.7764 * 0.5477 / 5**0.5, 1.2801), rel=1e-3)
    assert t_interval(values[:2]) is None
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_differences_are_of_the_seeds_that_both_have():
    a = pd.DataFrame({"seed": [2, 0, 1], "x": [5.0, 1.0, 2.0]})
    b = pd.DataFrame({"seed": [0, 2, 3], "x": [0.5, 1.0, 9.0]})
    assert differences(a, b, "x").tolist() == [0.5, 4.0]


def test_published_figures_agree_within_two_standard_errors():
    ours = runs({"adam": [(0.0650, 0.0354, 0.27), (0.0670, 0.0354, 0.26)]}, "validate")
    table = comparison("beauty", ours).set_index("metric")
    bound = 2 * (0.0020**2 / 2 / 2 + 0.00129**2 / 5) ** 0.5
    assert table.loc["HR@10", "two s.e."] == f"{bound:.4f}"
    assert table.loc["HR@10", "agrees"] == "yes"
    assert table.loc["HR@10", "difference"] == "-0.0008"
    ours[METRICS["HR@10"]] = [0.0600, 0.0601]
    assert comparison("beauty", ours)["agrees"][0] == "no"
    assert comparison("beauty", ours[:1])["agrees"][0] == "–"
    ours[METRICS["HR@10"]] = 0.06675  # a difference that rounds to zero has no sign
    assert comparison("beauty", ours)["difference"][0] == "0.0000"


def test_markdown_and_latex_distinguish_text_from_numbers():
    frame = pd.DataFrame({"name": ["a_b", "c | d"], "figure": ["0.1 ± 0.2", "–"]})
    text = markdown(frame)
    assert text.splitlines()[1].count(":|") == 1
    assert r"c \| d" in text
    code = latex(Table(frame, "50% of $m$"), "study/metrics")
    assert r"\begin{tabular}{lr}" in code
    assert r"a\_b" in code
    assert r"$\pm$" in code
    assert r"\caption{50\% of \$m\$}" in code
    assert r"\label{tab:study:metrics}" in code
    assert r"\label{tab:single-50-off:metrics}" in latex(Table(frame, ""), "single-50%off/metrics")
    odd = latex(Table(pd.DataFrame({"a^b": ["c~d", "e\\f"]}), ""), "x")
    for text in (r"a\textasciicircum{}b", r"c\textasciitilde{}d", r"e\textbackslash{}f"):
        assert text in odd


def test_every_optimizer_has_a_label_and_a_colour_that_stay():
    note_colours = [STYLES[o].colour for o in NOTE_VALUES]
    assert len(set(note_colours)) == len(NOTE_VALUES)
    assert label_of("simba_c_eq_m", "lr 3e-4") == "Simba + (c = m), lr 3e-4"
    assert label_of("my_own") == "my own"
    assert style_of("my_own") == style_of("my_own")
    assert style_of("my_own").colour.startswith("#")
    assert [short(v) for v in (0.0003, 1e-30, 0.5, 100, "x", 0.00025)] == [
        *("3e-4", "1e-30", "0.5", "100", "x", "2.5e-4")
    ]
    for value in (3096.0945, 0.123456789, 1.2345678e-5):  # a command must name the same number
        assert float(short(value)) == value


def test_steps_share_the_gap():
    figures = {"simba": (0.01, 1.0), "simba_leaky": (0.04, 0.6), "lion": (0.03, 0.2)}
    values = {
        o: [(0.1, ndcg, loss - 0.01), (0.1, ndcg, loss + 0.01)]
        for o, (ndcg, loss) in figures.items()
    }
    table = made(runs(values, "causes"))["causes-sasrec-beauty/steps"].set_index("step")
    assert table["Loss gap closed"].to_dict() == {
        **{label_of(o): "–" for o in ("simba", "simba_eq4", "simba_window", "ternary_lion")},
        **{label_of(o): "–" for o in ("ternary_lion_ef", "lion_8bit")},
        "Simba, leaky": "+50%",
        "Lion": "+50%",
    }
    assert table.loc["Simba, leaky", "Loss"] == "0.6000 ± 0.0141"
    known = table[table["n"] != "0"]
    assert known["NDCG@10 gap closed"].tolist() == ["–", "+150%", "-50%"]
    worse = values | {"lion": [(0.1, 0.005, 0.2)]}  # a gap that is none has no shares
    table = made(runs(worse, "causes"))["causes-sasrec-beauty/steps"].set_index("step")
    assert set(table["NDCG@10 gap closed"]) == {"–"}
    assert table.loc["Lion", "Loss gap closed"] == "+50%"
    assert "steps" not in " ".join(made(runs(values, "mine")))


def test_groups_hold_about_a_fifth_of_the_users_and_never_part_equal_ones():
    values = np.array([7, 7, 7, 7, 1, 1, 2, 3, 3, 9])
    d = np.array([0.1, 0.1, -0.1, 0.0, 0.0, -0.2, 0.3, 0.0, 0.0, 0.5])
    found = groups(d, np.full(10, 0.4), values)
    assert [(g.least, g.most) for g in found] == [(1, 1), (2, 3), (7, 7), (9, 9)]
    assert [g.users for g in found] == [2, 3, 4, 1]
    assert [(g.better, g.worse) for g in found] == [(0, 1), (1, 0), (2, 1), (1, 0)]
    assert [g.difference for g in found] == pytest.approx([-0.1, 0.1, 0.025, 0.5])
    low, high = t_interval(d[:4])
    assert (found[2].low, found[2].high) == pytest.approx((low, high), abs=1e-6)
    assert np.isnan(found[3].low)  # one user has no interval


def test_who_gains_is_told_in_percent_of_the_baseline():
    two = {"simba": EXACT["simba"] * 2, "lion": EXACT["lion"] * 2}
    frames = made(runs(two), gains=gains("simba", [0.1, -0.2]))
    line = frames["ablation-sasrec-beauty/popularity"].iloc[0]
    assert line.tolist() == ["Simba", "2", "+25% [0, +50]", "-50% [-75, -25]"]
    assert line.index.tolist()[2:] == ["0", "1 to 9"]


@pytest.mark.parametrize("width", [100, 60, 30])
def test_a_table_fits_its_terminal_and_cuts_no_word(capsys, monkeypatch, width):
    if width != 100:
        monkeypatch.setenv("COLUMNS", str(width))
    values = {o: [row, row] for o, (row,) in EXACT.items()}
    table = tables(studies(results(runs(values))))["ablation-sasrec-beauty/metrics"]
    show(table)
    output = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in output.splitlines()) <= width
    assert "\x1b" not in output
    words = {word for cell in table.frame.to_numpy().flat for word in cell.split()}
    assert words <= set(output.split())


def test_a_wide_table_is_shown_in_parts_that_begin_alike():
    frame = pd.DataFrame({"a": ["x"], "b": ["y"]} | {name: ["1" * 25] for name in "cdefg"})
    parts = narrow(frame)
    assert [part.columns.tolist() for part in parts] == [[*"abcde"], [*"abfg"]]
    wide = frame.map(lambda cell: cell * 10)  # a column that is too wide stands alone
    assert [part.columns.tolist() for part in narrow(wide)] == [[*"ab", name] for name in "cdefg"]


TEX = r"""\documentclass{article}
\usepackage[a4paper]{geometry}
\usepackage{booktabs,adjustbox}
\begin{document}
%s
\end{document}
"""


def has_tex():
    found = shutil.which("kpsewhich") and shutil.which("pdflatex")
    return bool(found) and not subprocess.run(["kpsewhich", "adjustbox.sty"]).returncode


@pytest.mark.skipif(not has_tex(), reason="no pdflatex with adjustbox")
def test_latex_tables_compile_and_can_be_read_on_a4(tmp_path):
    """Each table is set, and none is made smaller than 80% of footnotesize to fit."""
    files = sorted((REPOSITORY / "results" / "tables").rglob("*.tex"))
    text = "\\clearpage\n".join(path.read_text() for path in files)
    measured = re.sub(
        r"\\begin\{adjustbox\}\{max width=\\textwidth\}(.*?)\\end\{adjustbox\}",
        r"\\sbox0{\1}\\typeout{WIDTH \\the\\wd0 of \\the\\textwidth}\g<0>",
        text,
        flags=re.S,
    )
    (tmp_path / "all.tex").write_text(TEX % measured)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout
    found = re.findall(r"WIDTH ([\d.]+)pt ?of ([\d.]+)pt", done.stdout)
    assert len(found) >= len(files)
    assert max(float(width) / float(page) for width, page in found) < 1.25


@pytest.mark.parametrize("experiment", ["robustness", "search_lr_3e-4", "tuning"])
def test_the_size_of_a_sweep_is_that_of_hydra(experiment):
    """One lists its values itself, one takes them from another file, one does both."""
    assert sweep_size(experiment) == len(plan([f"experiment={experiment}"]).runs)
    assert sweep_size("none") == 0


def test_an_empty_experiment_file_declares_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.reporting.studies.EXPERIMENTS", tmp_path)
    (tmp_path / "mine_is_empty.yaml").write_text("# nothing yet\n")
    assert sweep_size("mine_is_empty") == 0
    assert declared("mine_is_empty") == Declaration()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: {answers: true", "not YAML: "),
        ("[lion, simba]", "must have keys and values, got a list"),
        ("hydra: 3", "hydra must have keys and values, got 3"),
        ("hydra:\nstudy:", None),
        ("study: {steps: [lion, simba]}", "study: Cannot merge"),
        ("study: {steps: {lion: a}}", "study.steps: two steps or more are needed"),
        ("study: hello", "study must have keys and values, got 'hello'"),
        ("# caf\udce9\nstudy: {}", "not YAML: "),
        ("defaults: 5", None),
        ("x: 2020-01-01", None),
        ("a: lion\nstudy: {baseline: '${a}'}", None),
        ("hydra: {sweeper: {params: {optimizer: 'choice(lion,simba)'}}}", None),
        ("study: {baseline: [lion]}", "study.baseline: "),
        ('study: {compares_with_note: "perhaps"}', "study.compares_with_note: "),
        ("study: {of: lion}", "Key 'of' not in 'Declaration'"),
        ("hydra: {sweeper: {params: {seed: 'range(0,5)'}}}", None),
    ],
)
def test_a_mistake_in_an_experiments_file_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr("scripts.reporting.studies.EXPERIMENTS", tmp_path)
    name = f"mine_{abs(hash(text))}"  # contents are cached by name
    (tmp_path / f"{name}.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    if message is None:
        assert declared(name) == Declaration()
        assert sweep_size(name) == 0  # range(0,5) is for Hydra to count
        return
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        declared(name)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_every_swept_key_separates_the_rows_of_a_table():
    def of(lr, batch, ndcg):
        swept = f"batch_size {batch}, lr {lr:g}"
        values = {"lion": [(0.1, ndcg, 0.5)]}
        return runs(values, "mine", lr=lr, batch_size=batch, swept=swept)

    made = tables([study(of(1e-3, 8, 0.01), of(1e-3, 16, 0.02), of(1e-2, 8, 0.03))])
    frame = made["mine-sasrec-beauty/metrics"].frame
    assert not frame[["optimizer", "lr", "batch_size"]].duplicated().any()
    assert "mine-sasrec-beauty/grid" not in made  # it would average over batch sizes


def test_swept_keys_with_the_same_last_part_are_distinguished():
    grid = list(itertools.product((0.0, 0.3), (0.1, 0.2), (1e-3, 1e-2)))
    frame = pd.concat(
        [runs({"lion": [(0.1, 0.01 * i, 0.5)]}, "mine", lr=lr) for i, (_, _, lr) in enumerate(grid)]
    ).reset_index(drop=True)
    keys = ("model.dropout", "optimizer.dropout", "optimizer.lr")
    frame = with_swept(frame, [dict(zip(keys, values, strict=True)) for values in grid])
    assert frame["swept"][1] == "model.dropout 0, optimizer.dropout 0.1, lr 0.01"
    made = study(frame)
    assert made.in_label(frame["swept"][1]) == ""
    shown = tables([made])["mine-sasrec-beauty/metrics"].frame
    assert not shown[["model.dropout", "optimizer.dropout", "lr"]].duplicated().any()
    for i, row in shown.sort_values("NDCG@10").reset_index().iterrows():
        assert runs_of_row(frame, row).index.tolist() == [i]


def test_a_sweep_over_epochs_is_one_over_the_config_not_over_the_trained_epochs():
    """``patience`` ends runs of one variant after different epochs."""
    frame = runs({"lion": [(0.1, 0.02, 0.5), (0.1, 0.03, 0.5)]}, "mine")
    frame["epochs"] = [3, 4]
    assert with_swept(frame, [{"epochs": 9}, {"epochs": 9}])["swept"].tolist() == ["", ""]
    made = study(with_swept(frame, [{"epochs": 9}, {"epochs": 5}]))
    assert made.swept == ["max_epochs"]
    assert [swept for _, swept in made.variants] == ["max_epochs 5", "max_epochs 9"]


def test_a_variant_is_compared_with_the_baseline_of_the_same_swept_values():
    texts = {
        "lr 1e-3": {"lr 1e-3", "lr 1e-3, threshold 0.2"},  # Lion has no threshold
        "lr 1e-2": {"lr 1e-2"},
    }
    lion = [runs({"lion": [(0.1, 0.1, 0.1)]}, "mine", swept=text) for text in texts]
    for text, same in texts.items():
        for swept in same:
            found = baseline_of(pd.concat(lion), "lion", swept)
            assert found["swept"].tolist() == [text]
    clipped = [runs({"lion": [(0, 0, 0)]}, "mine", swept=s) for s in ("", "max_grad_norm 1")]
    assert baseline_of(pd.concat(clipped), "lion", "").shape[0] == 1
    assert baseline_of(pd.concat(clipped), "lion", "max_grad_norm 2").empty


@pytest.mark.parametrize(
    ("key", "values", "label"),
    [
        ("data.sha256", ("a" * 64, "b" * 64), "sha256 aaaaaaaa"),
        ("batch_size", (8, 16), "batch_size 8"),
    ],
)
def test_a_setting_in_which_optimizers_differ_is_named(key, values, label):
    """Two data files of one name, say: their runs must not look comparable."""
    frame = runs({"lion": [(0.1, 0.1, 0.1)], "simba": [(0.1, 0.1, 0.1)]}, "mine")
    decays = [{"optimizer.weight_decay": decay} for decay in (0.1, 0.2)]
    assert with_swept(frame, decays)["swept"].tolist() == ["", ""]  # each has its own
    frame = with_swept(frame, [{key: value} for value in values])
    assert frame["swept"][0] == label
    assert baseline_of(frame, "lion", frame["swept"][1]).empty


@pytest.mark.slow
def test_the_baseline_of_another_experiment_is_labelled_so_and_leads_to_its_runs():
    for made in studies(load(RESULTS)):
        if f"{made.name}/metrics" not in (shown := tables([made])):
            continue
        behind = runs_behind([made], f"{made.name}/metrics")
        frame = shown[f"{made.name}/metrics"].frame
        keys = ["optimizer", *(made.short_names[key] for key in made.swept)]
        assert not frame[[k for k in keys if k in frame]].duplicated().any(), made.name
        for _, row in frame.iterrows():
            if "n" in row:
                assert len(runs_of_row(behind, row)) == int(row["n"]), (made.name, row["optimizer"])


def test_the_grid_counts_any_number_of_seeds():
    frames = [
        runs({"lion": [(0.1, 0.05, 0.3)] * n}, "mine", lr=lr, swept=f"lr {lr}")
        for lr, n in ((1e-4, 11), (3e-4, 12))
    ]
    assert "mean of 11 to 12 seeds" in grid(study(*frames)).caption


def test_the_best_rate_is_that_of_the_tuning_not_of_another_sweep_over_rates():
    def of(experiment, lr, valid, decay):
        more = {"valid/NDCG@10": valid, "weight_decay": decay, "swept": f"lr {short(lr)}"}
        return runs({"lion": [(0.1, 0.02, 0.5)]}, experiment, lr=lr, **more)

    tuning = [of("lr", lr, valid, 0.5) for lr, valid in ((1e-4, 0.01), (3e-4, 0.02))]
    other = [of("own_rates", lr, 0.03, 1.5) for lr in (3e-4, 5e-4)]
    found = studies(results(*tuning, *other, runs(EXACT)))
    base = next(s for s in found if s.experiment == "ablation")
    assert best_of_rates(found, base)["lion"][:2] == (0.02, 2)
