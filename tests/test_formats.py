"""Every format of docs/data.md is read, with the right ids, quotes, times and separators."""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import lzma
import re
import shlex
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.errors import DataError
from data.formats import ReadSettings
from data.interactions import Interactions, read_interactions
from data.prepare import compose, prepare, read_settings
from tests import fuzz_data
from tests.conftest import REPOSITORY

SHAPES = dict(
    re.findall(
        r"^\| (.+?) \| (`.+?`<br>`.+?` \| .+?) \|$",
        (REPOSITORY / "docs" / "data.md").read_text(),
        re.M,
    )
)


def read(path, content, keys=ReadSettings()) -> Interactions:  # noqa: B008
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_interactions(path, keys)


def rows(found: Interactions) -> list[tuple[str, str]]:
    """The (user, item) ids as the file writes them, in time order."""
    frame, ids = found.frame, found.ids
    return [
        (str(ids["user"][u]), str(ids["item"][i]))
        for u, i in zip(frame["user"], frame["item"], strict=True)
    ]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


def test_the_table_of_shapes_is_found():
    assert len(SHAPES) >= 14


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_of_the_docs_is_read_by_its_keys(file, shape):
    cells = re.fullmatch(r"`(.+?)`<br>`(.+?)` \| (?:none|`(.+)`)", SHAPES[shape])
    assert cells
    lines = [line.replace("⇥", "\t") for line in cells.group(1, 2)]
    cfg = compose("file", shlex.split(cells[3] or ""))
    found = read(file, "\n".join(lines) + "\n\n", read_settings(cfg))
    expected = {"lines of ids (S3-Rec)": 6}.get(shape, 1 + ("user" not in lines[0].lower()))
    if "JSON" in shape:
        expected = 2
    assert len(found.frame) == expected
    timed = any(re.search(r"\d{9}|\d{4}-\d\d", line) for line in lines) and "quoted" not in shape
    assert found.understood["order"].startswith("by time" if timed else "of the file")


@pytest.mark.parametrize(
    ("tokens", "ascending"),
    [
        (["10", "9", "-3", "0"], ["-3", "0", "9", "10"]),
        (["10", "9", "09"], ["09", "10", "9"]),
        (["10", "9", "-0"], ["-0", "10", "9"]),
        (["10", "9", "+9"], ["+9", "10", "9"]),
        (["10", "9", "9.0"], ["10", "9", "9.0"]),
        (["10", "9", "1e1"], ["10", "1e1", "9"]),
        (["10", "9", " 9"], [" 9", "10", "9"]),
        (["10", "9", "1_0"], ["10", "1_0", "9"]),
        (["10", "9", "٩"], ["10", "9", "٩"]),
        (["NA", "null", "nan", "None"], ["NA", "None", "nan", "null"]),
        (["9223372036854775807", "9"], ["9", "9223372036854775807"]),
        (
            ["9223372036854775808", "9"],
            ["9", "9223372036854775808"],
        ),  # sorted as text
        (["10", "9" * 5000, "9"], ["10", "9", "9" * 5000]),
    ],
)
@pytest.mark.parametrize("shape", ["csv", "json"])
def test_ids_are_tokens_and_sort_as_numbers_only_if_all_are(file, tokens, ascending, shape):
    lines = [f"1,{token}" for token in tokens]
    if shape == "json":
        entries = [pd.io.json.ujson_dumps({"user": 1, "item": token}) for token in tokens]
        found = read(file, "\n".join(entries))
    else:
        found = read(file, "\n".join(["user,item", *lines]))
    assert rows(found) == [("1", token) for token in tokens]
    assert [str(token) for token in found.ids["item"]] == ascending


def test_ids_in_lines_are_tokens_of_integers(file):
    assert rows(read(file, "1 007 7 -7\n\n")) == [("1", "007"), ("1", "7"), ("1", "-7")]
    for odd in ("1_2", "--4", "²", "+5", "4.0"):
        with pytest.raises(DataError, match=f"line 2: {re.escape(repr(odd))} is not an integer"):
            read(file, f"1 2\n1 {odd}\n")


@pytest.mark.parametrize("separator", ["\t", ",", ";", "|", " "])
def test_stray_quotes_belong_to_their_values(file, separator):
    lines = ['1 "a', "1 b", '1 "c', "1 d", '2 "', "2 e", '2 "']
    text = "\n".join(["user item", *lines]).replace(" ", separator)
    assert rows(read(file, text)) == [tuple(line.split(" ")) for line in lines]


def test_quotes_enclose_values_that_hold_separators_and_line_ends(file):
    text = 'user,item,title\n1,"a","one, two"\n"2","b","say ""hi""\nand go"\n3,c,plain\n'
    assert rows(read(file, text)) == [("1", "a"), ("2", "b"), ("3", "c")]
    with pytest.raises(DataError, match="line 5: item is missing"):  # the value above has two lines
        read(file, text.replace("3,c", "3,"))


LETTERS = "01_-.\"' aé²\t,;|:#\\N\x1f\u2028\xa0\ufeff"
TOKENS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)


@given(
    table=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=6),
    separator=st.sampled_from(["\t", ",", ";", "|", "::", " "]),
    is_csv=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_rows_are_read_as_they_were_written_or_refused(tmp_path_factory, table, separator, is_csv):
    is_csv = is_csv and len(separator) == 1
    if not is_csv:  # without CSV quotes, such values cannot be written
        assume(not any(v[0] == v[-1] == '"' or separator[0] in v for row in table for v in row))
    text = io.StringIO(newline="")
    rows_of_text = [("user", "item"), *table]
    if is_csv:
        csv.writer(text, delimiter=separator).writerows(rows_of_text)
    else:
        text.write("".join(f"{user}{separator}{item}\n" for user, item in rows_of_text))
    try:
        found = read(tmp_path_factory.getbasetemp() / "rows", text.getvalue())
    except DataError:
        return
    assert rows(found) == table


def test_times_of_all_kinds_are_sorted(file):
    for times in (
        ["-5", "3", "-10"],
        ["0.5", "1e3", "-1"],
        ["2020-03-09", "2020-03-09 20:56:38", "1960-01-01"],
        ["2020-03-09T01:00:00Z", "2020-03-09T02:00:00+00:30", "2020-03-09T02:00:00+02:00"],
    ):
        text = "user,item,timestamp\n" + "".join(f"1,{i},{t}\n" for i, t in enumerate(times))
        assert [item for _, item in rows(read(file, text))] == ["2", "0", "1"]


def test_a_time_column_of_another_name_is_never_ignored_silently(file):
    for name in ("time", "Timestamp", "unixReviewTime", "date", "ts", "created_at", "year"):
        text = f"user,item,{name}\n1,5,50\n1,1,10\n"
        with pytest.raises(DataError, match=rf"set data\.time_column={name}, or .*=false"):
            read(file, text)
        assert rows(read(file, text, ReadSettings(time=name))) == [("1", "1"), ("1", "5")]
        by_file = read(file, text, ReadSettings(time=False))
        assert rows(by_file) == [("1", "5"), ("1", "1")]
        assert by_file.understood["order"] == "of the file (data.time_column=false)"


def test_a_header_of_other_names_is_no_interaction(file):
    columns = ReadSettings(columns=("user", "item"))
    with pytest.raises(DataError, match="line 1 is a header"):
        read(file, "userId,movieId\n1,31\n1,32\n", columns)
    assert len(rows(read(file, "a,x\nb,y\nc,z\n", columns))) == 3


def test_a_key_for_a_column_is_not_ignored_silently(file):
    with pytest.raises(DataError, match=r"no column 'user' .*the file has no header, set"):
        read(file, "1\t2\t9\n2\t3\t8\n", ReadSettings(time="when"))


@pytest.mark.parametrize("form", ["csv", "inter", "json", "parquet"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time": "item"}, "item and time are one column, 'item"),
        ({"time": "user"}, "user and time are one column, 'user"),
        ({"item": "timestamp"}, "item and time are one column, 'timestamp"),
        ({"user": "item"}, "user and item are one column, 'item"),
    ],
)
def test_one_column_has_one_role(file, form, settings, message):
    if form == "inter":
        content = "user:token\titem:token\ttimestamp:float\n1\t2\t3\n"
        settings = {"user": "user", "item": "item"} | settings
    elif form == "json":
        content = '{"user": 1, "item": 2, "timestamp": 3}\n'
    elif form == "csv":
        content = "user,item,timestamp\n1,2,3\n"
    else:
        frame = pd.DataFrame({"user": [1], "item": [2], "timestamp": [3]})
        frame.to_parquet(file)
        content = file.read_bytes()
    with pytest.raises(DataError, match=rf"{message}.*set data\..*_column=NAME"):
        read(file, content, ReadSettings(**settings))


def test_a_time_in_a_later_json_line_is_not_ignored(file):
    text = '{"user": 1, "item": 2}\n{"user": 1, "item": 3, "timestamp": 1}\n'
    with pytest.raises(DataError, match=r"line 2: 'timestamp' looks like a time"):
        read(file, text)
    assert rows(read(file, text, ReadSettings(time=False))) == [("1", "2"), ("1", "3")]


def packed(content: bytes, *names: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, content)
    return archive.getvalue()


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": lambda content: packed(content, "a.csv", "__MACOSX/a.csv"),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_compressed_files_are_read_whole_or_refused(file, kind):
    text = "user,item\n" + "".join(f"{i},{i * 7919 % 1013}\n" for i in range(3000))
    content = PACKERS[kind](text.encode())
    found = read(file, content)
    assert len(found.frame) == 3000
    assert found.understood["compression"] == kind
    for cut in (len(content) // 2, len(content) - 1):
        with pytest.raises(DataError, match="damaged or cut short"):
            read(file, content[:cut])
    with pytest.raises(DataError, match="compressed twice"):
        read(file, gzip.compress(content))


def test_an_archive_of_several_files_lists_them(file):
    with pytest.raises(DataError, match=r"contains 2 files .*'ratings.dat', 'users.dat'.*unpack"):
        read(file, packed(b"1::2", "ratings.dat", "users.dat"))


DAY = datetime.date(1969, 12, 31)
PARQUET = {  # item, time
    "int": (pa.array([3, -1, 2]), None),
    "uint64": (pa.array([2**64 - 1, 1, 2], pa.uint64()), None),
    "whole floats": (pa.array([3.0, 1.0, 2.0]), None),
    "categories": (pa.array(["b", "a", "b"]).dictionary_encode(), None),
    "bool": (pa.array([True, False, True]), None),
    "binary": (pa.array([b"b", b"a", b"b"]), None),
    "date32": (pa.array([3, 1, 2]), pa.array([DAY, DAY - datetime.timedelta(1), DAY])),
    "timestamps": (pa.array([3, 1, 2]), pa.array([9, -4, 9], pa.timestamp("ns", "UTC"))),
    "decimals": (pa.array([3, 1, 2]), pa.array([decimal.Decimal(i) for i in (9, 4, 9)])),
    "text": (pa.array([3, 1, 2]), pa.array(["2020-01-02", "2020-01-01", "2020-01-02"])),
}
BAD_PARQUET = {
    "list": (pa.array([[1], [2], [3]]), None, "the item column holds list"),
    "no ids": (pa.nulls(3), None, "the item column holds null"),
    "missing": (pa.array([1, None, 3]), None, "row 2: item is missing"),
    "fraction": (pa.array([1.0, 2.0, 2.5]), None, "row 3: item id 2.5"),
    "not UTF-8": (pa.array([b"a", b"\xff", b"b"]), None, "damaged Parquet: Invalid UTF"),
    "list of times": (pa.array([1, 2, 3]), pa.array([[1]] * 3), "the time column holds list"),
    "no time": (pa.array([1, 2, 3]), pa.array([1, None, 3]), "row 2: timestamp"),
}


def write_parquet(file, item, time):
    columns = {"user": pa.array([1, 1, 1]), "item": item}
    pq.write_table(pa.table(columns | ({} if time is None else {"timestamp": time})), file)


@pytest.mark.parametrize("kind", PARQUET)
def test_parquet_of_all_kinds(file, kind):
    item, time = PARQUET[kind]
    write_parquet(file, item, time)
    found = read_interactions(file, ReadSettings())
    names = [v.decode() if isinstance(v, bytes) else str(v) for v in item.to_pylist()]
    if kind == "whole floats":
        names = ["3", "1", "2"]
    if kind == "bool":
        names = ["true", "false", "true"]
    order = [0, 1, 2] if time is None else [1, 0, 2]
    assert [item for _, item in rows(found)] == [names[i] for i in order]


@pytest.mark.parametrize("kind", BAD_PARQUET)
def test_parquet_that_is_refused(file, kind):
    item, time, message = BAD_PARQUET[kind]
    write_parquet(file, item, time)
    with pytest.raises(DataError, match=message):
        read_interactions(file, ReadSettings())


def test_parquet_in_a_zip(file):
    content = io.BytesIO()
    write_parquet(content, pa.array([3, 1, 2]), None)
    found = read(file, packed(content.getvalue(), "a.parquet"))
    assert rows(found) == [("1", "3"), ("1", "1"), ("1", "2")]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["user", "item"], "line 1 has 3 values, but data.columns names 2"),
        (["user", "item", "user"], "data.columns must be a list of different names"),
        ("user,item", "data.columns must be a list of different names"),
        (["user", "what", "timestamp"], "no column 'item'"),
        (["user", "item", "when"], None),
    ],
)
def test_columns_of_a_table_without_a_header(file, columns, message):
    file.write_text("a,b,1\na,c,2\na,d,3\na,e,4\nx,f,1\n")
    if message is None:
        assert prepare({"path": file, "columns": columns}).sequences.num_items == 5
        return
    with pytest.raises(DataError, match=message):
        prepare({"path": file, "columns": columns})


def test_a_header_of_numbers_is_a_header_if_its_columns_are_named(file):
    """As pandas writes a table without column names."""
    text = "0,1,2\n1,3,10\n1,4,11\n1,5,9\n"
    with pytest.raises(
        DataError, match=r"has no header, .*are named 0, 1, 2, set data\.user_column=0"
    ):
        read(file, text)
    named = ["data.user_column=0", "data.item_column=1", "data.time_column=2"]
    found = read(file, text, read_settings(compose("file", named)))
    assert rows(found) == [("1", "5"), ("1", "3"), ("1", "4")]


def test_a_header_is_not_taken_for_an_interaction(file):
    with pytest.raises(DataError, match="line 1 is a header"):
        read(file, "User,Item\n1,2\n", ReadSettings(columns=("user", "item")))


@pytest.mark.parametrize(
    ("separator", "text"),
    [("tab", "a\tb"), ("\\t", "a\tb"), ("comma", "a,b"), ("||", "a||b"), (" - ", "a - b")],
)
def test_separators_by_word_and_by_text(file, separator, text):
    keys = ReadSettings(columns=("user", "item"), separator=separator)
    assert rows(read(file, f"{text}\n{text}\n", keys)) == [("a", "b")] * 2


@pytest.mark.parametrize("separator", ["", '"', "\n"])
def test_separators_that_separate_nothing(file, separator):
    with pytest.raises(DataError, match=r"data\.separator must not be"):
        read(file, "a,b\n", ReadSettings(columns=("user", "item"), separator=separator))


def test_random_files_are_read_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("data.cache.FOLDER", None)  # the fuzzer sets its own
    outcomes, failures = fuzz_data.run(300, seed=0, folder=tmp_path)
    assert not failures, "\n".join(failures)
    assert min(outcomes["read"], outcomes["refused"]) > 30


def test_the_order_of_the_parsed_rows_is_stable(file):
    items = np.random.default_rng(0).permutation(500)
    text = "user,item,timestamp\n" + "".join(f"1,{i},7\n" for i in items)
    assert [int(item) for _, item in rows(read(file, text))] == items.tolist()
