"""Time a padded SASRec with freerec's data pipes and metrics; prints one line of JSON.

The freerec package contains no SASRec; its author's SASRec is in another repository (RecBoard). The
model below has the same form (pre-norm, FFN 64 to 64) and uses freerec's classes.
"""

import tempfile
import time
from pathlib import Path

import torch
from common import arguments, report, targets_of_steps
from freerec.criterions import BCELoss4Logits
from freerec.data.datasets.base import RecDataSet
from freerec.data.tags import TaskTags
from freerec.metrics import hit_rate, normalized_dcg
from freerec.models import SeqRecArch
from torch import nn

D, MAXLEN, RATE = 64, 50, 0.2
options = arguments()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.ffn_norm = nn.LayerNorm(D), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, 1, dropout=RATE, batch_first=True)
        self.ffn = nn.Sequential(
            nn.Linear(D, D), nn.Dropout(RATE), nn.ReLU(), nn.Linear(D, D), nn.Dropout(RATE)
        )

    def forward(self, x, future):
        attended, _ = self.attention(self.norm(x), x, x, attn_mask=future, need_weights=False)
        x = self.ffn_norm(attended + x)
        return x + self.ffn(x)


class SASRec(SeqRecArch):
    def __init__(self, dataset):
        super().__init__(dataset)
        self.table = nn.Embedding(self.Item.count + 1, D, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(MAXLEN, D))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.dropout = nn.LayerNorm(D), nn.Dropout(RATE)
        self.criterion = BCELoss4Logits(reduction="mean")
        self.register_buffer("future", torch.ones(MAXLEN, MAXLEN).triu(1).bool())

    def pipe(self):
        fields = (self.ISeq, self.IPos, self.INeg)
        return (
            self.dataset.train()
            .shuffled_seqs_source(maxlen=MAXLEN)
            .seq_train_yielding_pos_(start_idx_for_target=1, end_idx_for_input=-1)
            .seq_train_sampling_neg_(num_negatives=1)
            .add_(offset=1, modified_fields=(self.ISeq,))
            .lpad_(MAXLEN, modified_fields=fields, padding_value=0)
            .batch_(512)
            .tensor_()
        )

    def states(self, items):
        real = (items > 0).unsqueeze(-1)
        x = self.dropout(D**0.5 * self.table(items) + self.position) * real
        for block in self.blocks:
            x = block(x, self.future) * real
        return self.norm(x)

    def loss(self, data):
        real = data[self.ISeq] > 0
        states, table = self.states(data[self.ISeq])[real], self.table.weight[1:]
        total = 0.0
        for wanted, label in ((self.IPos, torch.ones), (self.INeg, torch.zeros)):
            scores = (states * table[data[wanted].reshape(real.shape)[real]]).sum(-1)
            total = total + self.criterion(scores, label(len(scores)))
        return total, int(real.sum())


with tempfile.TemporaryDirectory() as folder:
    processed = Path(folder) / "Processed" / "peer"
    processed.mkdir(parents=True)
    rows = {"train": [], "valid": [], "test": []}
    for line in options.data.read_text().splitlines():
        user, *items = (int(token) - 1 for token in line.split())
        for t, item in enumerate(items):
            mode = {len(items) - 1: "test", len(items) - 2: "valid"}.get(t, "train")
            rows[mode].append(f"{user}\t{item}\t{t}\n")
    fields = {
        "USER": {"tags": ["USER", "ID"], "normalizer": "reindexer"},
        "ITEM": {"tags": ["ITEM", "ID"], "normalizer": "reindexer"},
    }
    for mode, lines in rows.items():
        (processed / f"{mode}.txt").write_text("USER\tITEM\tTIMESTAMP\n" + "".join(lines))
    dataset = RecDataSet(folder, "peer", tasktag=TaskTags.NEXTITEM, cfg=fields)
    model = SASRec(dataset)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.999))

    def step(data):
        loss, targets = model.loss(data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return targets

    speeds = targets_of_steps(model.pipe(), step, options.steps)
    model.eval()
    seconds = []
    for _ in range(options.evaluations):
        start = time.perf_counter()
        with torch.no_grad():
            for data in model.sure_testpipe(MAXLEN, "full", 512):
                scores = model.states(data[model.ISeq])[:, -1] @ model.table.weight[1:].T
                seen = model.Item.to_csr(data[model.ISeen]).to_dense().bool()
                scores[seen] = -1e23
                wanted = model.Item.to_csr(data[model.IUnseen]).to_dense()
                for k in (1, 5, 10, 20):
                    hit_rate(scores, wanted, k=k)
                    normalized_dcg(scores, wanted, k=k)
        seconds.append(time.perf_counter() - start)
report("freerec", speeds, seconds)
