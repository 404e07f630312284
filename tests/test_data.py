"""Formats, order, splits, batches, and the one-line errors for everything wrong with a file."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

import data.interactions
from data import cache
from data.batches import best_fit, ranking_batches, training_batches
from data.errors import DataError
from data.formats import ReadSettings
from data.interactions import read_interactions
from data.prepare import k_core, prepare, statistics, to_sequences
from data.sequences import Sequences, ranges


def parse(path, k=0, user_column=None, item_column=None, time_column=None):
    """Read a file and number its ids, without the checks that training needs."""
    keys = ReadSettings(user=user_column, item=item_column, time=time_column)
    return to_sequences(k_core(read_interactions(path, keys).frame, k))


def load(path, **keys):
    return prepare({"path": path} | keys).sequences


def lists(data: Sequences) -> list[list[int]]:
    return [part.tolist() for part in np.split(data.items, data.offsets[1:-1])]


NOTE_VALUES = [  # user, item, time: the same interactions in every format
    (1, 10, 5), (2, 30, 1), (1, 20, 5), (1, 30, 2), (2, 10, 9), (2, 40, 4), (1, 40, 7),
]  # fmt: skip
EXPECTED = [[3, 1, 2, 4], [3, 4, 1]]  # equal times (10 and 20 of user 1) keep the file's order


@pytest.mark.parametrize("kind", ["csv", "tsv", "inter", "parquet", "named", "dates"])
def test_tables_with_a_header(tmp_path, kind):
    path = tmp_path / "file.data"  # the name does not show the format
    frame = pd.DataFrame(NOTE_VALUES, columns=["user", "item", "timestamp"])
    keys = {}
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "dates":
        frame["timestamp"] = pd.to_datetime(frame["timestamp"], unit="D")
        frame.to_parquet(path)
    elif kind == "named":
        frame.columns = ["who", "what", "when"]
        frame.to_csv(path, index=False)
        keys = {"user_column": "who", "item_column": "what", "time_column": "when"}
    else:
        frame.columns = ["user_id:token", "item_id:token", "timestamp:float"]
        frame.to_csv(path, index=False, sep="\t")
    assert lists(parse(path, **keys)) == EXPECTED


def test_ids_may_be_any_text_and_without_times_the_order_is_the_files(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("user,item\nbob,b\nann,c\nbob,a\nbob,c\nann,a\nann,b\n")
    assert lists(parse(path)) == [[3, 1, 2], [2, 1, 3]]


def test_lines_and_pairs_are_the_same(tmp_path):
    lines, pairs = tmp_path / "lines", tmp_path / "pairs"
    lines.write_text("1 5 7 6\n2 7 5 8\n")
    pairs.write_text("1 5\n2 7\n1 7\n2 5\n1 6\n2 8\n")
    assert lists(parse(lines)) == lists(parse(pairs)) == [[1, 3, 2], [3, 1, 4]]


def test_k_core_is_iterated(tmp_path):
    path = tmp_path / "x"
    # item 9 is rare; without it user 3 is too short; without user 3 item 4 is rare
    path.write_text("1 1 2 3 4\n2 1 2 3\n3 9 4 1\n4 1 2 3\n")
    assert lists(parse(path, k=3)) == [[1, 2, 3]] * 3


def test_short_users_are_trained_on_and_counted(tmp_path):
    path = tmp_path / "x"
    path.write_text("1 1 2 3 4 5\n2 1 2\n3 6\n4 7 8 9\n")
    data = load(path)
    assert data.train_lengths.tolist() == [3, 2, 1, 1]
    counted = statistics(data)
    assert counted["users_not_evaluated"] == 2
    assert counted["users_not_trained"] == 2  # with one training item there is no target


BAD = {
    "empty": ("", "the file is empty"),
    "not an id": ("1 2 3\n2 x\n", "line 2: 'x' is not an integer"),
    "float id": ("1 2 3\n2 1.5 2\n", "line 2: '1.5' is not an integer"),
    "one column": ("1\n2\n", "line 1: user '1' has an empty sequence"),
    "empty sequence": ("1 2 3\n2\n", "line 2: user '2' has an empty sequence"),
    "empty line": ("1 2 3\n\n2 3 4\n", "line 2 is empty: delete it"),
    "mixed": ("1 2 3\n2,3,4\n", "line 2: '2,3,4' is not an integer"),
    "commas": ("1,2,3\n", "line 1 contains numbers: if the file has no header, set data.columns="),
    "user twice": ("1 2 3\n1 3\n", "line 2: user 1 has a line already"),
    "header only": ("user,item\n", "no interactions"),
    "one name": ("user\n1\n", "expected integers"),
    "no such column": ("user,thing\n1,2\n", "no column 'item'"),
    "NaN time": ("user,item,timestamp\n1,2,3\n1,3,nan\n", "line 3: timestamp 'nan'"),
    "text time": ("user,item,timestamp\n1,2,soon\n", "line 2: timestamp 'soon'"),
    "other date": ("user,item,timestamp\n1,2,03/09/2020\n", "nor an ISO date"),
    "digits lost": (
        "user,item,timestamp\n1,2,1600000000000000001.5\n1,3,1600000000000000001.25\n",
        "timestamps have more digits than a float holds",
    ),
    "two kinds of time": ("user,item,timestamp\n1,2,3\n1,3,2020-03-09\n", "line 3: timestamp"),
    "time of another name": ("user,item,Date\n1,2,3\n", "set data.time_column=Date"),
    "missing user": ("user,item,timestamp\n,2,3\n", "line 2: user is missing"),
    "mixed table": ("user,item,timestamp\n1,2,3\n1\t2\t3\n", "line 3: item is missing"),
    "long row": ("user,item\n1,2\n\n1,2,3,4\n", "line 4: 4 values, but 2 columns"),
    "no user": ("user,item\n1,2\n\n,3\n", "line 4: user is missing"),
    "mark alone": ("\ufeff", "the file is empty"),
    "NUL": ("user,item\n1,2\n1,3\x00\n", "line 3: a NUL byte"),
    "UTF-16": ("\udcff\udcfeu\x00", "UTF-16 is not supported: convert the file to UTF-8"),
    "Latin-1": ("user,item\n1,caf\udce9\n", "iconv -f latin1 -t utf-8"),
    "5,000 digits": ("1 2\n1 x" + "9" * 5000, "line 2: 'x999999"),
    "huge value": ("user,item\n" + "x" * 200_000 + ",1\n,2\n", "field larger than field limit"),
    "huge name": ("x" * 200_000 + ",item\n1,2\n", "field larger than field limit"),
    "open quote": ('user,item\n1,2\n1,"3,4\n', "line 3: 3 values, but 2 columns"),
    "two of a name": ("user,item,item\n1,2,3\n", "2 columns are named 'item'"),
    "sequences": (
        "user_id:token\titem_id_list:token_seq\titem_id:token\n1\t2 3\t4\n",
        "RecBole's sequence files are not supported",
    ),
    "broken JSON": ('{"user": 1, "item": 2}\n{"user": 1,\n', "line 2: not JSON"),
    "Python's dict": ("{'user': 1}\n", "json.dumps(ast.literal_eval(line))"),
    "JSON array": ('[{"user": 1, "item": 2}]\n', "one JSON object per line, got an array"),
    "JSON array over lines": ('[\n{"user": 1, "item": 2}\n]\n', "; a JSON array: write one"),
    "nested JSON": ("{" + '"a": [' * 99999, "line 1: not JSON"),
    "JSON without an item": ('{"user": 1, "item": 2}\n{"user": 1}\n', "line 2: item is missing"),
    "JSON list": ('{"user": 1, "item": [2]}\n', "line 1: item is ['2']"),
    "tar": ("x" * 257 + "ustar", "tar is not supported: unpack the archive"),
    "HDF5": ("\udc89HDF", "HDF5 is not supported: convert"),
    "nobody": ("1 2\n2 3\n", "no user has three"),
    "binary": ("\x00\x01\udcff", "neither UTF-8"),
    "all items had": (
        "1 1 2 3\n2 3 2 1 4\n7 4 3 2 1 1 1\n",
        "user '7' has interacted with all 4 items",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_a_one_line_error_that_names_it(tmp_path, case):
    content, message = BAD[case]
    path = tmp_path / "bad.txt"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError) as caught:
        load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nanoseconds_with_and_without_a_decimal_point_keep_their_order(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"1,{i},{1600000000000000020 - i}{'.0' if i == 0 else ''}" for i in range(5)]
    path.write_text("\n".join(["user,item,timestamp", *rows]))
    assert lists(parse(path)) == [[5, 4, 3, 2, 1]]


def test_parquet_ids_that_are_missing_or_equal(tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame({"user": ["a"] * 3, "item": ["x", "", "y"]}).to_parquet(path)
    with pytest.raises(DataError, match="row 2: item is missing"):
        load(path)
    zeros = {"user": ["a"] * 4, "item": [0.0, 1.0, -0.0, 2.0]}
    pd.DataFrame(zeros).to_parquet(path)
    assert lists(parse(path)) == [[1, 2, 1, 3]]


def test_a_file_that_changes_while_it_is_read_is_an_error(toy, cache_folder, monkeypatch):
    def changed(*arguments):
        content = read_interactions(*arguments)
        toy.write_text(toy.read_text() + "99 1 2 3\n")
        return content

    monkeypatch.setattr("data.interactions.read_interactions", changed)
    with pytest.raises(DataError, match="changed while it was read"):
        load(toy)


def test_truncated_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    pd.DataFrame(NOTE_VALUES, columns=["user", "item", "timestamp"]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"x\.parquet"):
        load(path)


def test_nobody_left_after_k_core(toy):
    with pytest.raises(DataError, match=r"no user is left after data\.k_core=1000"):
        load(toy, k_core=1000)


def by_hand(data: Sequences, user: int) -> tuple[list[int], int, int]:
    *train, valid, test = lists(data)[user]
    return train, valid, test


def test_training_batches_hold_each_user_once_shifted(toy):
    data = load(toy)
    seen = []
    for batch in training_batches(data, np.random.default_rng(0), 16, 5, 1, layout="rows"):
        assert batch.num_users in (16, len(data.trainable()) % 16)
        for row in range(len(batch.items)):
            real = np.flatnonzero(batch.items[row])
            assert (batch.targets[row] > 0).tolist() == (batch.items[row] > 0).tolist()
            for start in np.unique(batch.starts[row, real]):
                slots = real[batch.starts[row, real] == start]
                assert batch.positions[row, slots].tolist() == list(range(5 - len(slots), 5))
                sequence = [*batch.items[row, slots], batch.targets[row, slots[-1]]]
                assert batch.targets[row, slots].tolist() == sequence[1:]
                seen.append([int(item) for item in sequence])
    trainable = [by_hand(data, user)[0][-5:] for user in data.trainable()]
    assert sorted(seen) == sorted(trainable)
    assert data.num_targets(5) == sum(len(s) - 1 for s in seen)


def test_both_layouts_hold_the_same_tokens_and_negatives(toy):
    data = load(toy)
    for rows, flat in zip(
        training_batches(data, np.random.default_rng(0), 16, 5, 2, layout="rows"),
        training_batches(data, np.random.default_rng(0), 16, 5, 2, layout="flat"),
        strict=True,
    ):
        real = rows.items > 0
        assert rows.items.shape[1] == 5
        assert flat.items.shape == (1, real.sum())
        assert (flat.items > 0).all()
        order = rows.tokens[real]
        for name in ("items", "positions", "targets", "negatives"):
            assert (getattr(rows, name)[real] == getattr(flat, name)[0, order]).all()


def test_an_unknown_layout_is_named(toy):
    with pytest.raises(ValueError, match="'rows' or 'flat', got 'row'"):
        next(ranking_batches(load(toy), "test", 7, 5, layout="row"))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_ranking_batches_exclude_all_earlier_items(toy, split):
    data = load(toy)
    users = iter(data.evaluated)
    for batch in ranking_batches(data, split, 7, 5):
        held_out = batch.held_out
        for b in range(len(held_out.targets)):
            train, valid, test = by_hand(data, next(users))
            known, target = (train, valid) if split == "valid" else ([*train, valid], test)
            assert held_out.targets[b] == target
            seen = slice(*held_out.excluded_offsets[b : b + 2])
            assert held_out.excluded_items[seen].tolist() == known
            assert batch.items.reshape(-1)[batch.slots[b]] == known[-1]
    assert next(users, None) is None


def test_negatives_are_uniform_over_all_but_the_training_items(toy):
    data = load(toy)
    user = int(data.trainable()[0])
    training_items = set(by_hand(data, user)[0])
    one = Sequences(data.items[: data.offsets[user + 1]], data.offsets[: user + 2], 40)
    drawn: list[int] = []
    for seed in range(3000):
        (batch,) = training_batches(one, np.random.default_rng(seed), 999, 5, 2)
        drawn += batch.negatives[batch.targets > 0].reshape(-1).tolist()
    counts = np.bincount(drawn, minlength=41)[1:]
    free = [i for i in range(40) if i + 1 not in training_items]
    assert counts[[i - 1 for i in training_items]].sum() == 0
    assert counts[free].min() > 0.8 * counts[free].mean()
    assert counts[free].max() < 1.2 * counts[free].mean()


def test_best_fit_overlaps_nothing():
    lengths = np.random.default_rng(0).integers(1, 51, 300)
    row, column, rows = best_fit(lengths, 50)
    slots = ranges(row * 50 + column, lengths)
    assert len(np.unique(slots)) == lengths.sum()
    assert (column + lengths <= 50).all()
    assert rows <= lengths.sum() / 50 * 1.2


@pytest.fixture
def cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "prepared")
    return tmp_path / "prepared"


def test_cached_data_is_read_without_the_parser(toy, cache_folder, monkeypatch):
    first = load(toy)
    monkeypatch.setattr(data.interactions, "read_interactions", None)
    again = load(toy)
    assert isinstance(again.items, np.memmap)
    assert lists(again) == lists(first)
    assert again.num_items == first.num_items


def test_data_is_prepared_again_if_the_file_or_a_key_changed(toy, cache_folder):
    first = load(toy)
    assert len(load(toy, k_core=8).items) < len(first.items)
    toy.write_text(toy.read_text() + "61 1 2 3\n")
    assert load(toy).num_users == 61


def rewrite(folder, sign=True, **changes):
    """Change cached data and, with ``sign``, also its checksums."""
    about = json.loads((folder / "about.json").read_text())
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            np.save(folder / f"{name}.npy", value)
            about[f"{name}.npy"] = cache.sha256(folder / f"{name}.npy")
        else:
            about[name] = value
    if sign:
        about["checksum"] = cache._checksum(about)
    (folder / "about.json").write_text(json.dumps(about))


DAMAGE = {
    "a byte": lambda f: (f / "items.npy").write_bytes((f / "items.npy").read_bytes()[:-1] + b"x"),
    "an array is missing": lambda f: (f / "offsets.npy").unlink(),
    "no metadata": lambda f: (f / "about.json").unlink(),
    "empty metadata": lambda f: (f / "about.json").write_text(""),
    "foreign metadata": lambda f: (f / "about.json").write_text("[1]"),
    "binary metadata": lambda f: (f / "about.json").write_bytes(b"\xff\xfe"),
    "altered num_items": lambda f: rewrite(f, sign=False, num_items=9),
    "understood": lambda f: rewrite(f, sign=False, understood={}),
    "an item's id": lambda f: (f / "item_ids.json").write_text('["1"]'),
    "no ids": lambda f: (f / "item_ids.json").unlink(),
    "signed num_items": lambda f: rewrite(f, num_items=9),
    "item 0": lambda f: rewrite(f, items=np.load(f / "items.npy") - 1),
    "item too high": lambda f: rewrite(f, items=np.load(f / "items.npy") * 2),
    "items of another type": lambda f: rewrite(f, items=np.load(f / "items.npy").astype(float)),
    "offsets beyond the items": lambda f: rewrite(f, offsets=np.load(f / "offsets.npy") * 2),
    "offsets that fall": lambda f: rewrite(f, offsets=np.load(f / "offsets.npy")[[0, 2, 1, -1]]),
    "no offsets": lambda f: rewrite(f, offsets=np.empty(0, np.int64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_reported_and_prepared_again(toy, cache_folder, damage, capsys):
    first = load(toy)
    (folder,) = cache_folder.iterdir()
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGE[damage](folder)
    assert lists(load(toy)) == lists(first)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{folder}: the cache is damaged" in message
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content
    load(toy)
    assert not capsys.readouterr().err


def test_a_cache_of_another_version_is_silently_prepared_again(toy, cache_folder, capsys):
    load(toy)
    (folder,) = cache_folder.iterdir()
    content = (folder / "about.json").read_bytes()
    rewrite(folder, version=cache.VERSION - 1)
    load(toy)
    assert (folder / "about.json").read_bytes() == content
    assert not capsys.readouterr().err


def test_data_is_read_even_if_the_cache_cannot_be_written(toy, cache_folder):
    cache_folder.write_text("a file where the folder should be")
    assert load(toy).num_users == 60


def error_line(done) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


CASES = {
    "unknown dataset": (["nonsense"], ["data=nonsense"], "nonsense"),
    "no path": (["file"], ["data=file"], "data.path"),
    "missing file": (
        ["file", "data.path=/no/x"],
        ["data=file", "data.path=/no/x"],
        "/no/x",
    ),
    "missing root": (
        ["beauty", "data.root=/no/dir"],
        ["data=beauty", "data.root=/no/dir"],
        "/no/dir",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_both_commands_end_in_one_line_and_write_nothing(run_module, tmp_path, case):
    prepare_arguments, train_arguments, message = CASES[case]
    assert message in error_line(run_module("data.prepare", *prepare_arguments))
    root = tmp_path / "results"
    done = run_module("scripts.train", *train_arguments, f"results.root={root}")
    assert message in error_line(done)
    assert not list((root / "runs").rglob("*.json"))


def test_checksum_and_network_through_both_commands(run_module, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "Beauty.txt").write_text("1 2 3 4\n")
    results = f"results.root={tmp_path / 'results'}"
    for line in (
        error_line(run_module("data.prepare", "beauty", SIMBA_DATA=str(root))),
        error_line(run_module("scripts.train", "data=beauty", results, SIMBA_DATA=str(root))),
    ):
        assert "sha256 is" in line
        assert hashlib.sha256(b"1 2 3 4\n").hexdigest() in line
    url = "data.url=http://127.0.0.1:9/Toys.txt"  # no server listens at this port
    for line in (
        error_line(run_module("data.prepare", "toys", url, "data.file=absent.txt")),
        error_line(run_module("scripts.train", "data=toys", url, "data.file=absent.txt", results)),
    ):
        assert "127.0.0.1:9" in line
        assert "SIMBA_DATA" in line
    assert not list((tmp_path / "results" / "runs").rglob("*.json"))


def test_bad_content_through_both_commands(run_module, tmp_path):
    bad = tmp_path / "bad.txt"
    bad.write_text("1 2 3\n2 1_4 5\n")
    results = f"results.root={tmp_path / 'results'}"
    for done in (
        run_module("data.prepare", "file", f"data.path={bad}"),
        run_module("scripts.train", "data=file", f"data.path={bad}", results),
    ):
        assert "bad.txt: line 2: '1_4' is not an integer id" in error_line(done)
    assert not list((tmp_path / "results" / "runs").rglob("*.json"))


def test_repeats_are_kept_in_order():
    frame = pd.DataFrame({"user": [1, 1, 1], "item": [5, 5, 7]})
    assert to_sequences(frame).items.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("mask_seen", "seen", "masked"),
    [
        ("others", [[1, 2], [3, 1, 2]], [True, False]),
        ("all", [[1, 2], [3, 1, 2]], [True, False]),
        ("none", [[], []], [True, False]),
    ],
)
def test_the_items_that_a_ranking_excludes(mask_seen, seen, masked):
    """The test item 1 of user 0 is also an earlier item; the test item 4 of user 1 is not."""
    items = np.array([1, 2, 1, 3, 1, 2, 4], dtype=np.int32)
    data = Sequences(items, np.array([0, 3, 7]), num_items=4)
    (batch,) = ranking_batches(data, "test", 7, 5, mask_seen=mask_seen)
    held_out = batch.held_out
    assert held_out.targets.tolist() == [1, 4]
    by_user = np.split(held_out.excluded_items, held_out.excluded_offsets[1:-1])
    assert [part.tolist() for part in by_user] == seen
    assert held_out.rank_last.tolist() == (masked if mask_seen == "all" else [False, False])
