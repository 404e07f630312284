"""What every variant stores and how it moves a coordinate, in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from scripts.reporting.cells import OPTIMIZER, Table
from scripts.reporting.finalists import BYTES, state_bytes
from scripts.reporting.studies import Study
from scripts.reporting.style import label_of


class Rule(NamedTuple):
    """A variant in words: its state per coordinate, and the direction of its step."""

    state: str
    direction: str


VOTE = "sign(s + fresh q)"
CORRECTED = "sign(s + gain e / per_vote + fresh q)"
RULES = {  # as simba/directions.py computes them
    "lion": Rule("m, a decaying average of gradients", "sign(b1 m + (1 − b1) g)"),
    "sign_sgd": Rule("nothing", "sign(g)"),
    "simba": Rule(
        "s, a counter of signs, clamped to [−w, w] in each step",
        "sign(s) where abs(s)/w > gamma, else sign(g)  (eq. 5)",
    ),
    "simba_m": Rule("m and s", "sign(m) where abs(s)/w > gamma, else sign(g)"),
    "simba_eq1": Rule(
        "m and s", "sign(s) where b1 abs(m) > (1 − b1) abs(g), else sign(g)  (eq. 1)"
    ),
    "simba_c_eq_m": Rule("m", "sign(m)"),
    "simba_eq4": Rule("s", "as Simba, but sign(s) where g = 0  (eq. 4)"),
    "simba_window": Rule("the last w signs, and s, their sum", "as Simba by eq. 4"),
    "simba_leaky": Rule("s, a decaying counter of signs", f"{VOTE}, q the sign of g"),
    "ternary_lion": Rule("s, a decaying counter of votes", f"{VOTE}, q a vote of −1, 0 or 1"),
    "ternary_lion_byte": Rule("s, and e, the rounding error of votes, in one byte", CORRECTED),
    "ternary_lion_ef": Rule("s, and e, the rounding error of votes, a byte each", CORRECTED),
    "ternary_lion_byte_lasting": Rule("s and e in one byte; e decays, s keeps its sign", CORRECTED),
    "ternary_lion_byte_fine": Rule(
        "as one byte, lasting, with fewer values of s and more of e", CORRECTED
    ),
    "ternary_lion_byte_balanced": Rule(
        "as one byte, lasting, with fewer values of s, and e of at most half a vote", CORRECTED
    ),
    "ternary_lion_carry": Rule(
        "s and e in one byte, the digits of one decaying sum; the sum keeps its sign", CORRECTED
    ),
    "ternary_lion_ef_lasting": Rule("s and e, a byte each; e decays, s keeps its sign", CORRECTED),
    "lion_8bit": Rule(
        "s, a decaying sum of gradients, rounded to a byte", f"{VOTE}, q the scaled gradient"
    ),
    "lion_8bit_lasting": Rule("as 8-bit Lion; s keeps its sign", f"{VOTE}, q the scaled gradient"),
    "adamw": Rule("averages of gradients and of their squares", "m / sqrt(v)"),
}


def variants(studies: Sequence[Study], _: Path) -> Table | None:
    """One row per variant that has a run: what it stores, and how it moves."""
    lines = [
        {
            OPTIMIZER: label_of(optimizer),
            BYTES: f"{stored:g}",
            "state": rule.state,
            "direction": rule.direction,
        }
        for optimizer, rule in RULES.items()
        if (stored := state_bytes(studies, optimizer)) is not None
    ]
    caption = (
        "The state of every variant, and the direction of its step; g is the gradient. The step is "
        "the learning rate times this direction. Each s and m is updated after the step (AdamW's "
        "averages before it). w, gamma, b1, gain and per_vote are hyperparameters, fresh = gain (1 "
        "− b1) / (b1 (1 − b2)). The names Simba + m, + (1) and + (c = m) are the note's: (1) is "
        "its equation 1, and its c is the average whose sign Lion follows."
    )
    return Table(pd.DataFrame(lines), caption) if lines else None
