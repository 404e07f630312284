"""What the report's sentences say, compared with figures chosen by hand."""

import pandas as pd
import pytest

from scripts.reporting import findings
from scripts.reporting.note import NOTE_VALUES
from scripts.reporting.studies import studies
from tests.made_up import DIAGNOSTICS, EXACT, gains, results, runs, study

LION = [(0.07, 0.040, 0.15), (0.08, 0.042, 0.16), (0.09, 0.041, 0.17)]


def shifted(ndcg, loss, wobble=0.0):
    """Lion's seeds with other figures; ``wobble`` sets the seeds' differences apart."""
    offs = (-wobble, 0.0, wobble)
    return [(hr, n + ndcg + w, lo + loss + w) for (hr, n, lo), w in zip(LION, offs, strict=True)]


def beside(optimizer="simba", **more):
    values = {"lion": LION, optimizer: shifted(**more)}
    return findings.versus_baseline(study(runs(values)), optimizer)


def test_a_variant_is_compared_with_the_seeds_that_its_baseline_has():
    ours = beside(ndcg=-0.0041, loss=0.02)
    assert ours.seeds == 3
    assert ours.theirs == pytest.approx(0.041)
    assert ours.percent == pytest.approx(90.0)
    assert ours.difference_in_percent == "10% below"
    fewer = study(runs({"lion": LION[:2], "simba": shifted(0.0041, 0)}))
    found = findings.versus_baseline(fewer, "simba")
    assert found.seeds == 2
    assert found.theirs == pytest.approx(0.041)
    assert found.ours == pytest.approx(0.0451)
    assert found.difference_in_percent == "10% above"


def test_significance_follows_the_interval():
    assert not findings.versus_baseline(
        study(runs({"lion": LION[:1], "simba": LION[:1]})), "simba"
    ).has_interval
    clear, unclear = (
        beside(ndcg=-0.004, loss=0.02, wobble=1e-4),
        beside(ndcg=-0.004, loss=0.02, wobble=0.1),
    )
    assert clear.significance_in_short == "significant, three seeds"
    assert unclear.significance_in_short == "not significant, three seeds"
    assert "the difference is -0.0040 [" in clear.significance
    assert clear.loss_in_words.startswith("higher by 0.0200 [")
    assert clear.loss_in_words.endswith("which is significant")
    assert beside(ndcg=0, loss=-0.02, wobble=0.1).loss_in_words.startswith("lower by 0.0200 [")


def test_interval_at_zero_is_not_significant():
    assert findings.significant((0.0, 1.0)) == "not significant"
    assert findings.significant((-1.0, 0.0)) == "not significant"
    assert findings.significant((0.1, 1.0)) == findings.significant((-1, -0.1)) == "significant"


def finalists():
    """The note's setting, and three variants that take their baseline from it."""
    ablation = runs({"lion": LION, "simba": shifted(-0.03, 0.7)})
    small = runs(
        {"ternary_lion_ef": shifted(-0.001, 0), "lion_8bit": shifted(-0.002, 0)},
        experiment="finalists",
        state_bytes_per_param=1.0,
    )
    large = runs({"adamw": shifted(0.001, 0)}, experiment="finalists", state_bytes_per_param=8.0)
    return studies(results(ablation, small, large))


def test_the_nearest_are_smaller_than_the_baseline_and_the_best_comes_first():
    made = finalists()
    assert [b.optimizer for b in findings.with_less_state(made)] == ["ternary_lion_ef", "lion_8bit"]
    (finalist,) = [s for s in made if s.experiment == "finalists"]
    assert len(finalist.baseline)
    assert findings.with_less_state([s for s in made if s.experiment != "ablation"]) == []


def test_as_large_leaves_out_the_smaller_and_the_baseline():
    large = runs({"adamw": shifted(0.001, 0)}, state_bytes_per_param=8.0)
    small = runs({"simba": shifted(0.002, 0)}, state_bytes_per_param=2.0)
    made = study(runs({"lion": LION, "simba_m": shifted(-0.001, 0)}), large, small)
    assert [b.optimizer for b in findings.with_as_much_state(made)] == ["adamw", "simba_m"]


def test_verdicts_are_counted_and_the_last_is_the_lowest():
    exact = {o: [(a - 1e-4, b, c), (a + 1e-4, b, c)] for o, ((a, b, c),) in EXACT.items()}
    counts = {v: len(labels) for v, labels in findings.verdicts(study(runs(exact))).items()}
    assert counts["reproduced"] == len(NOTE_VALUES)
    assert sum(counts.values()) == len(NOTE_VALUES)
    lowest = min(NOTE_VALUES, key=lambda o: NOTE_VALUES[o].ndcg)
    assert lowest == "simba"
    assert findings.worst_variant(study(runs(exact))) == findings.worst_in_note() == "Simba"
    swapped = exact | {"sign_sgd": exact["simba"], "simba": exact["sign_sgd"]}
    assert findings.worst_variant(study(runs(swapped))) == "sign-SGD"


def test_the_rarest_items_tell_who_loses_most_first():
    lines = pd.concat([gains("simba", (-0.1, 0.2)), gains("simba_m", (-0.3, 0.2))])
    ablation = runs({"lion": LION, "simba": LION, "simba_m": LION})
    other = runs({"simba": LION, "simba_m": LION}, experiment="finalists")
    lines = lines.assign(experiment="finalists")
    found = findings.rarest(studies(results(ablation, other, gains=lines)))
    assert [(r.label, r.significant) for r in found] == [("Simba + m", True), ("Simba", False)]


def test_the_last_epoch_that_was_diagnosed_is_told_and_no_other():
    line = {"dataset": "beauty", "model": "sasrec", "experiment": "ablation", "optimizer": "simba"}
    frame = pd.DataFrame(
        [
            line
            | {
                "seed": 0,
                "epoch": epoch,
                "quantity": q,
                "part": part,
                "value": value if part == "items" else 0.7,
            }
            for epoch, value in ((100, 0.9), (500, 0.2))
            for q in ("against", "astray_s")
            for part in ("items", "all")
        ],
        columns=DIAGNOSTICS,
    )
    with_steps = study(runs({"lion": LION, "simba": LION}), diagnostics=frame)
    found = findings.diagnosed(with_steps, with_steps, "simba")
    assert found == pytest.approx((0.2, 0.2))
    assert findings.diagnosed(with_steps, with_steps, "lion") == (None, None)
    without = study(runs({"lion": LION, "simba": LION}))
    assert findings.diagnosed(without, without, "simba") == (None, None)


def test_runs_whose_last_epoch_was_the_best_are_counted():
    made = study(runs({"lion": LION}, epochs=10))  # the best epochs are 5, 10 and 15
    assert findings.still_improving(made) == "1 of 3 runs"


def test_published_comparisons_agree_only_in_all_figures():
    whole, part = pd.DataFrame({"agrees": ["yes"] * 3}), pd.DataFrame({"agrees": ["yes", "no"]})
    assert findings.agreeing([whole, part]) == 1


def test_large_steps_name_the_faults_that_they_mend():
    def of(loss, ndcg):
        return [(0.1, ndcg, loss)] * 2

    values = {"simba": of(1.0, 0.01), "simba_eq4": of(0.99, 0.01), "simba_window": of(0.6, 0.01)}
    values |= {"simba_leaky": of(0.59, 0.02), "lion": of(0.59, 0.021)}
    made = study(runs(values, "causes"))
    assert [s.optimizer for s in findings.largest_steps(made)] == ["simba_window", "simba_leaky"]
    removes = made.declared.removes
    assert findings.weaknesses(made) == [removes["simba_window"]]  # leaky has another instead
    assert set(removes) < set(made.declared.steps)


def test_the_best_byte_is_chosen_by_valid_among_those_of_one_byte():
    def of(swept, valid, size):
        own = {"valid/NDCG@10": valid, "state_bytes_per_param": size, "swept": swept}
        return runs({"ternary_lion_byte_lasting": LION[:1]}, "one_byte", **own)

    lion = runs({"lion": LION[:2]}, "causes", **{"valid/NDCG@10": 0.031})
    many = [of("gain 1", 0.02, 1.0), of("gain 2", 0.03, 1.0), of("gain 3", 0.04, 2.0)]
    made = {s.experiment: s for s in studies(results(lion, *many))}
    assert findings.best_byte(made["one_byte"]) == ("gain 2", 0.03, 0.031)


def test_what_is_kept_is_under_the_strongest_corruption_of_a_kind_over_equal_seeds():
    def of(corrupt, *ndcg):
        values = {"lion": [(0.1, x, 0.5) for x in ndcg]}
        return runs(values, "mine", corrupt=corrupt, swept=f"corrupt {corrupt}")

    exact = of(None, 0.04, 0.09)
    made = study(exact, of("flip-0.1", 0.01), of("flip-0.4", 0.03), of("scale-2", 0.02))
    (flip,), (scale,) = findings.kept(made, "flip"), findings.kept(made, "scale")
    assert (flip.label, round(flip.share), flip.strength, flip.seeds) == ("Lion", 75, "0.4", 1)
    assert scale.share == pytest.approx(50.0)
    assert scale.value == pytest.approx(0.02)
    assert findings.kept(made, "noise") == []
