"""docs/scale.md shows what benchmarks.cost computes."""

import pytest
import torch

from benchmarks import cost
from benchmarks.report import FOLDER, markdown
from simba.distributed import pack, to_digits
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("table", [cost.methods_table, cost.steps_table])
def test_the_page_and_the_results_contain_the_tables(table):
    shown = markdown(table())
    assert shown in (FOLDER / "cost.md").read_text()
    assert shown in (REPOSITORY / "docs" / "scale.md").read_text()
    assert cost.as_csv([table()]) in (FOLDER / "cost.csv").read_text()


def test_the_page_is_short():
    assert len((REPOSITORY / "docs" / "scale.md").read_text().splitlines()) < 120


def test_a_workers_bytes_are_those_of_packed_votes():
    votes = torch.zeros(1_000_000, dtype=torch.int8)
    packed = pack(to_digits(votes, 3), 3).numel()
    model = cost.Model("", 1e6, 1.0, 1)
    ternary = next(m for m in cost.METHODS if m.name == "ternary votes")
    assert cost.sent(model, ternary, 1000) == pytest.approx(2 * 0.999 * packed)


def test_more_workers_compute_less_and_send_more():
    (model, *_) = cost.MODELS
    for method in cost.METHODS:
        assert cost.compute_seconds(model, 8) == 8 * cost.compute_seconds(model, 64)
        assert cost.sent(model, method, 8) < cost.sent(model, method, 64)
