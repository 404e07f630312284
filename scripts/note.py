"""The note's published figures on Beauty: Loss, HR@10 and NDCG@10 of each row, table by table."""

from typing import NamedTuple


class Published(NamedTuple):
    label: str
    hr: float
    ndcg: float
    loss: float


# The note prints Simba+m, Simba+(1) and Simba+(c=m) one by one; the first two are its test of the
# two differences between Simba and Lion and share a table here.
TABLES: dict[str, dict[str, Published]] = {
    "note_1": {
        "lion": Published("Lion", 0.0690, 0.0381, 0.145131),
        "sign_sgd": Published("Sign Gradient", 0.0420, 0.0213, 0.665475),
        "simba": Published("Simba", 0.0195, 0.0094, 0.872968),
    },
    "note_2": {
        "simba_m": Published("Simba + m", 0.0693, 0.0378, 0.145657),
        "simba_eq1": Published("Simba + (1)", 0.0296, 0.0152, 0.578699),
    },
    "note_3": {
        "simba_c_eq_m": Published("Simba + (c = m)", 0.0667, 0.0358, 0.142691),
    },
}
ROWS: dict[str, Published] = {name: row for table in TABLES.values() for name, row in table.items()}
