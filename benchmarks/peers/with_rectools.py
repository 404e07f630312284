"""Time RecTools' SASRecModel on a S3-Rec file, in its environment; prints one line of JSON."""

import logging
import time
import warnings

import pandas as pd
from common import WARM_UP, arguments, report
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
options = arguments()


speeds: list[float] = []
ends: list[float] = []


class Clock(Callback):
    """Times each step from the end of the step before, so with the loading of the batch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        now = time.perf_counter()
        if len(ends) >= WARM_UP:
            speeds.append(int((batch["y"] != 0).sum()) / (now - ends[-1]))
        ends.append(now)


def trainer():
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=WARM_UP + options.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Clock()],
    )


rows = []
for line in options.data.read_text().splitlines():
    user, *items = line.split()
    rows += [(user, item, 1.0, pd.Timestamp(t, unit="s")) for t, item in enumerate(items[:-1])]
columns = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
frame = pd.DataFrame(rows, columns=columns)
train = Dataset.construct(frame[frame.duplicated(Columns.User, keep="last")])
known = Dataset.construct(frame)
settings = {"n_blocks": 2, "n_heads": 1, "n_factors": 64, "session_max_len": 50}
training = {"loss": "BCE", "n_negatives": 1, "batch_size": 512, "recommend_batch_size": 512}
model = SASRecModel(dropout_rate=0.2, get_trainer_func=trainer, **settings, **training)
model.fit(train)
seconds = []
for _ in range(options.evaluations):
    start = time.perf_counter()
    model.recommend(frame[Columns.User].unique(), known, k=50, filter_viewed=True)
    seconds.append(time.perf_counter() - start)
report("rectools", speeds, seconds)
