"""The squared correlation of votes with gradients, on numbers computed by hand."""

import pytest
import torch

from benchmarks.correlation import KINDS, PARTS, Follower, part_of, squared_correlation, table
from benchmarks.report import FOLDER, read_lines


def test_it_is_the_squared_cosine():
    x, y = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    assert squared_correlation(x, -2 * x) == pytest.approx(1)
    assert squared_correlation(x, y) == pytest.approx(0.36)
    assert squared_correlation(x, torch.zeros(2)) == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("EF")])
def test_with_feedback_the_sum_of_votes_and_error_is_that_of_the_gradients(kind):
    torch.manual_seed(0)
    gradients = torch.randn(40, 5)
    follower, scale = Follower(kind, gradients[0]), torch.tensor(1.0)
    votes = sum(follower.vote(g, scale) for g in gradients)
    exact = gradients.sum(0) / follower.spacing
    torch.testing.assert_close(votes + follower.error, exact, rtol=1e-4, atol=1e-4)


def test_the_committed_table_is_that_of_the_committed_results():
    lines = read_lines("correlation")
    assert {part_of(line["tensor"]) for line in lines} == set(PARTS)
    assert len({line["tensor"] for line in lines}) == 28
    assert (FOLDER / "correlation.md").read_text().startswith(table(lines))
