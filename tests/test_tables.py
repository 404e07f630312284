"""Verdicts, intervals and corrections against figures worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from scripts.errors import ConfigError
from scripts.make_tables import tables
from scripts.note import ROWS, interval, verdict
from scripts.paired import bootstrap, holm
from scripts.published import comparison
from scripts.studies import HYPERPARAMETERS, STUDY
from scripts.tables import METRICS

NO_USERS = pd.DataFrame(columns=[*STUDY, "optimizer", "seeds", "users", "better", "worse", "p"])
NO_LOOKS = pd.DataFrame(columns=[*STUDY, "optimizer", "seed", "epoch", "quantity", "of", "value"])


def runs(values, experiment="ablation", dataset="beauty", **more):
    """Runs with ``values[optimizer] = [(HR, NDCG, loss) of seed 0, of seed 1, ...]``."""
    lines = [
        {
            "experiment": experiment,
            "model": "sasrec",
            "dataset": dataset,
            "optimizer": optimizer,
            "seed": seed,
            **HYPERPARAMETERS,
            "valid/NDCG@10": 0.03,
            "best_epoch": 5 * (seed + 1),
            "setting": "same",
            "record": "a.json",
            **dict(zip(METRICS.values(), figures, strict=True)),
            **more,
        }
        for optimizer, seeds in values.items()
        for seed, figures in enumerate(seeds)
    ]
    return pd.DataFrame(lines)


def test_the_rule():
    ours = pd.Series([0.9, 1.0, 1.1])  # std 0.1; two spreads are 0.2 * sqrt(4 / 3) = 0.2309
    assert verdict(ours, 1.23, same_place=False) == "reproduced"
    assert verdict(ours, 0.77, same_place=True) == "reproduced"
    assert verdict(ours, 1.24, same_place=True) == "same order"
    assert verdict(ours, 0.76, same_place=False) == "not reproduced"
    assert verdict(ours[:1], 0.9, same_place=True) is None
    assert interval(ours) == pytest.approx(4.3027 * 0.1 * (4 / 3) ** 0.5, rel=1e-4)
    assert interval(ours[:1]) is None


def test_a_row_gets_the_worst_verdict_of_its_figures():
    exact = {o: [row[1:], row[1:]] for o, row in ROWS.items()}
    exact["lion"] = [(0.0690, 0.0381, 0.145131), (0.0690, 0.0381, 0.145132)]
    exact["simba"] = [(0.0195, 0.0094, 0.80)] * 2  # off, but still the highest loss
    exact["sign_sgd"] = [(0.0420, 0.0213, 0.90)] * 2  # above Simba's
    made = tables(runs(exact), NO_USERS, NO_LOOKS)
    rows = made["ablation-sasrec-beauty/rows"].set_index("SASRec with")
    assert rows.loc["Lion", "verdict"] == rows.loc["Simba + m", "verdict"] == "reproduced"
    assert rows.loc["Simba", "verdict"] == "not reproduced (Loss)"  # its place went to sign-SGD
    assert rows.loc["Sign Gradient", "verdict"] == "not reproduced (Loss)"
    assert rows.loc["Lion", "best epoch"] == "5 to 10"
    assert rows.loc["Lion", "HR@10 note"] == rows.loc["Lion", "HR@10 ours"].split()[0] == "0.0690"
    exact["sign_sgd"] = [(0.0420, 0.0213, 0.70)] * 2
    made = tables(runs(exact), NO_USERS, NO_LOOKS)
    rows = made["ablation-sasrec-beauty/rows"].set_index("SASRec with")
    assert rows.loc["Simba", "verdict"] == "same order (Loss)"
    figures = made["note_1"]
    line = figures[(figures["SASRec with"] == "Simba") & (figures["figure"] == "Loss")].iloc[0]
    assert (line["ours − note"], line["verdict"]) == ("-0.0730", "same order")
    order = made["order"].iloc[0]
    assert order["rows by NDCG@10 on test"].startswith("Lion > Simba + m > Simba + (c = m) > Sign")
    assert (order["sign(m) on top"], order["Kendall's tau with the note"]) == ("yes", "1.00")


def test_only_the_notes_own_setting_is_held_against_its_figures():
    exact = {o: [row[1:]] for o, row in ROWS.items()}
    for other in ({"experiment": "short"}, {"dataset": "toys"}, {"epochs": 10}, {"lr": 1e-3}):
        made = tables(runs(exact, **other), NO_USERS, NO_LOOKS)
        assert not any("note_" in name for name in made)
        assert not any("verdict" in frame.columns for frame in made.values())


def test_rates_are_ranked_by_valid():
    values = {o: [row[1:]] for o, row in ROWS.items()}
    low = runs(values, "lr", **{"valid/NDCG@10": 0.01})
    high = runs(values, "lr", **{"valid/NDCG@10": 0.02}).assign(lr=1e-3)
    high.loc[high["optimizer"] == "lion", "valid/NDCG@10"] = 0.005
    made = tables(pd.concat([low, high]), NO_USERS, NO_LOOKS)["lr-sasrec-beauty/rates"]
    lines = made.set_index("valid NDCG@10 with")
    assert lines.columns.tolist() == ["lr 1e-4", "lr 1e-3", "best lr"]
    assert lines.loc["Lion"].tolist() == ["0.0100", "0.0050", "1e-4"]
    assert lines.loc["Simba"].tolist() == ["0.0100", "0.0200", "1e-3"]


def test_a_search_counts_the_rows_that_a_setting_explains():
    def losses(shift, spread=0.0):
        return {
            o: [(0.1, 0.1, row.loss + shift - spread), (0.1, 0.1, row.loss + shift + spread)]
            for o, row in ROWS.items()
        }

    curve = {"curve/epoch": "200 500", "curve/train/loss": "0.9 0.142"}
    curve["curve/valid/NDCG@10"] = "0.02 0.03"
    base = runs(losses(0.02, 0.002), **curve)  # of two: 2 * 0.002 * sqrt(2) * sqrt(1.5) = 0.0069
    near = runs({o: losses(0.006)[o] for o in ("lion", "simba")}, "search_no_decay", **curve)
    one = near.assign(experiment="search_window_100")  # of one: 2 * 0.002 * sqrt(2) * sqrt(2)
    one = one[one["seed"] == 0].assign(**{"train/loss": one["train/loss"] + 0.0015})
    far = near.assign(experiment="search_far", **{"train/loss": 0.5})
    toys = far.assign(experiment="search_no_decay", dataset="toys", record="b.json")
    made = tables(pd.concat([base, near, one, far, toys]), NO_USERS, NO_LOOKS)
    lines = made["search"][made["search"]["quantity"] == "loss"].set_index("setting")
    assert lines.loc["note", "Lion"] == "0.1451"
    assert lines.loc["ablation", "Simba"] == "0.8930"
    assert lines["rows explained"].to_dict() == {
        "note": "",
        "ablation": "0 of 6",
        "ablation, epoch 200": "0 of 6",
        # 0.142 in this curve: the note's three around it
        "ablation, lowest loss of the evaluated epochs": "3 of 6",
        "no decay": "2 of 6",
        "window 100": "2 of 6",
        "far": "0 of 6",
    }
    assert lines["n"].tolist() == ["", "2", "2", "2", "2", "2", "1"]
    # the last epoch's loss is the ablation's; a lowest loss has no valid of its own
    assert len(made["search"]) == 1 + 2 * 7 - 2
    lion = base["optimizer"] == "lion"
    base.loc[lion, "train/loss"] -= 0.02  # explained as it is: counts where it has no runs, too
    some = near[near["optimizer"] == "simba"]
    found = tables(pd.concat([base, some]), NO_USERS, NO_LOOKS)["search"].set_index("setting")
    assert found.loc["no decay", "rows explained"].tolist() == ["2 of 6", ""]
    assert lines.loc["no decay", "Simba + m"] == "–"
    assert not any("search" in name for name in made if "/" in name)


def test_a_missing_row_takes_no_verdict_from_the_others():
    off = {o: [(0.5, 0.5, row.loss + 0.001 * i) for i in (40, 41)] for o, row in ROWS.items()}
    del off["simba_c_eq_m"]
    made = tables(runs(off), NO_USERS, NO_LOOKS, partial=True)
    assert set(made["note_1"]["verdict"]) == {"–"}
    order = made["order"].iloc[0]
    assert (order["sign(m) on top"], order["Kendall's tau with the note"]) == ("–", "–")


def test_one_run_has_one_record_and_all_rows_one_rate():
    study = runs({o: [row[1:]] for o, row in ROWS.items()})
    with pytest.raises(ConfigError, match=r"one run, two records \(a.json, b.json\)"):
        tables(pd.concat([study, study[:1].assign(record="b.json")]), NO_USERS, NO_LOOKS)
    study.loc[study["optimizer"] == "simba", "weight_decay"] = 0.0
    with pytest.raises(ConfigError, match="several values of weight_decay"):
        tables(study, NO_USERS, NO_LOOKS)


def test_choices_are_those_of_the_last_look():
    lines = [
        {"optimizer": "lion", "seed": seed, "epoch": epoch, "quantity": "memory", "of": "items"}
        | {"value": 0.5 * (epoch == 20) + 0.1 * seed}
        for epoch in (10, 20)
        for seed in (0, 1)
    ]
    moves = [
        {"optimizer": "lion", "seed": seed, "epoch": 20, "quantity": quantity, "of": of}
        | {"value": value}
        for seed in (0, 1)
        for quantity, ofs, value in (("path", "12345", 0.9), ("agreement", ["items"], 0.7))
        for of in ofs
    ]
    looks = pd.DataFrame(lines + moves)
    looks = looks.assign(experiment="ablation", model="sasrec", dataset="beauty")
    exact = {o: [row[1:]] for o, row in ROWS.items()}
    table = tables(runs(exact), NO_USERS, looks)["ablation-sasrec-beauty/choices"]
    assert table["item embeddings with"].tolist() == ["Lion"]
    assert (table["move by memory"][0], table["mean abs(s)/w"][0]) == ("55%", "–")
    assert (table["move against Lion"][0], table["rest"][0]) == ("20%", "10%")


def test_bootstrap_and_holm():
    # of five zeros and ones, a resample's mean is binomial: all ones 7.8%, at most 0.2 8.7%, 0 1%
    assert bootstrap(np.array([0.0, 0.0, 1.0, 1.0, 1.0])) == (0.2, 1.0)
    assert bootstrap(np.full(5, 0.5)) == (0.5, 0.5)
    assert bootstrap(np.array([1.0, 2.0, 3.0, 4.0])) is None
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_published_figures_agree_within_two_standard_errors():
    # published std is of the population: 0.0012 * sqrt(5/4) as a sample's
    ours = runs({"adam": [(0.0650, 0.0354, 0.27), (0.0670, 0.0354, 0.26)]}, "validate")
    table = comparison("beauty", ours, METRICS).set_index("metric")
    bound = 2 * (0.0020**2 / 2 / 2 + 0.0012**2 * 5 / 4 / 5) ** 0.5
    assert table.loc["HR@10", "two s.e."] == f"{bound:.4f}"
    assert table.loc["HR@10", "agrees"] == "yes"
    assert table.loc["HR@10", "difference"] == "-0.0008"
    ours["test/HR@10"] = [0.0600, 0.0601]
    assert comparison("beauty", ours, METRICS)["agrees"][0] == "no"
    assert comparison("beauty", ours[:1], METRICS)["agrees"][0] == "–"
