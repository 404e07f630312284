"""Time RecBole's SASRec on a S3-Rec file, in its environment; prints one line of JSON."""

import sys
import tempfile
import time
from pathlib import Path

import torch
from common import arguments, report, targets_of_steps

torch_load = torch.load
torch.load = lambda *a, **kw: torch_load(*a, **{"weights_only": False} | kw)  # RecBole 1.2.1's way

options = arguments()
sys.argv = sys.argv[:1]  # RecBole parses sys.argv, too
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.model.sequential_recommender import SASRec  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    data = Path(folder) / "peer"
    data.mkdir()
    with (data / "peer.inter").open("w") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for line in options.data.read_text().splitlines():
            user, *items = line.split()
            out.writelines(f"{user}\t{item}\t{t}\n" for t, item in enumerate(items))
    config = Config(
        model="SASRec",
        dataset="peer",
        config_dict={
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": 50,
            "hidden_size": 64,
            "inner_size": 256,
            "n_layers": 2,
            "n_heads": 1,
            "hidden_dropout_prob": 0.2,
            "attn_dropout_prob": 0.5,
            "loss_type": "BPR",
            "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
            "train_batch_size": 512,
            "eval_batch_size": 512,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": {"valid": "full", "test": "full"},
            },
            "metrics": ["Hit", "NDCG"],
            "topk": [1, 5, 10, 20, 50],
            "valid_metric": "NDCG@10",
            "learning_rate": 1e-3,
            "device": "cpu",
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "seed": 0,
            "reproducibility": True,
        },
    )
    train, _, test = data_preparation(config, create_dataset(config))
    model = SASRec(config, train.dataset)
    trainer = Trainer(config, model)
    model.train()

    def step(batch):
        trainer.optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        trainer.optimizer.step()
        return len(batch)  # one target per sample

    speeds = targets_of_steps(train, step, options.steps)
    seconds = []
    for _ in range(options.evaluations):
        start = time.perf_counter()
        trainer.evaluate(test, load_best_model=False)
        seconds.append(time.perf_counter() - start)
report("recbole", speeds, seconds)
