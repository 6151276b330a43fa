import contextlib
import hashlib
import json
import logging
import math
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import offrl
from offrl.data.cache import cache_folder, verify
from offrl.data.card import Card, find_card
from offrl.data.columns import NAMES
from offrl.data.dataset import Dataset, load_dataset
from offrl.data.describe import check, stats
from offrl.data.fetch import fetch, make
from offrl.errors import InputError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("OFFRL_CACHE", str(folder))
    return folder


def npz(path: Path, seed: int = 0, rows: int = 20, length: int = 5) -> Path:
    """A small file in NeoRL-2's layout: episodes of `length` steps, cut by the time limit."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    observations = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    np.savez(
        path,
        obs=observations[:-1],
        action=rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        next_obs=observations[1:],
        reward=np.arange(rows, dtype=np.float32),
        done=np.zeros(rows, dtype=np.float32),
        truncated=(np.arange(rows) % length == length - 1).astype(np.float32),
    )
    return path


def card(files: list[dict[str, Any]], **keys: Any) -> Card:
    return Card.model_validate(
        {
            "id": "tiny",
            "version": 1,
            "title": "tiny",
            "source": {"loader": "neorl2", "files": files},
            "reference": {"min": 10.0, "max": 90.0, "source": "made up"},
            "licence": "none",
            "citation": "none",
        }
        | keys
    )


def left_over(folder: Path) -> list[str]:
    """Files and folders that are neither data nor locks: nothing half-written may stay."""
    return [p.name for p in folder.rglob(".*") if not p.name.endswith(".lock")]


# --- the Dataset ---


def test_dataset_has_what_design_promises(tmp_path: Path) -> None:
    data = offrl.load_dataset(card([{"name": str(npz(tmp_path / "a.npz"))}]))
    assert isinstance(data, offrl.Dataset)
    assert len(data) == 20
    for values in (data.observations, data.actions, data.rewards, data.next_observations):
        assert isinstance(values, np.memmap)
        assert values.dtype == np.float32
    assert data.terminations.dtype == data.truncations.dtype == np.bool_
    assert data.episode_starts.tolist() == [0, 5, 10, 15]
    assert data.episode_lengths.tolist() == [5] * 4
    assert data.episode_returns.tolist() == [10.0, 35.0, 60.0, 85.0]
    assert data.normalized(data.episode_returns).tolist() == [0.0, 31.25, 62.5, 93.75]
    assert data.normalized(90) == 100
    assert data.validation is None
    assert repr(data) == (
        "<Dataset tiny v1: 20 transitions in 4 episodes of 5, observations 3, actions 2, "
        "mean return 47.5 (score 46.9)>"
    )


def test_arrays_are_read_only(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="read-only"):
        data.rewards[0] = 1


def test_a_pickled_dataset_is_a_path(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz", rows=5000))
    sent = pickle.dumps(data)
    assert len(sent) < 4000
    again = pickle.loads(sent)
    assert isinstance(again.observations, np.memmap)
    np.testing.assert_array_equal(again.observations, data.observations)


def test_without_references_nothing_is_normalised(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "my data.npz"))
    assert data.card.id == "my-data"
    with pytest.raises(InputError, match=r"my-data: its card has no reference returns"):
        data.normalized(1.0)
    assert "score" not in repr(data)


def test_stats(tmp_path: Path) -> None:
    found = stats(load_dataset(card([{"name": str(npz(tmp_path / "a.npz"))}])))
    assert (found.transitions, found.episodes) == (20, 4)
    assert (found.terminations, found.truncations) == (0, 4)
    assert (found.length_min, found.length_mean, found.length_max) == (5, 5.0, 5)
    assert found.return_mean == 47.5
    assert found.return_std == pytest.approx(25 * math.sqrt(5 / 3))
    assert found.return_quantiles == pytest.approx([10, 13.75, 28.75, 47.5, 66.25, 81.25, 85])
    assert found.score_mean == pytest.approx(46.875)
    assert -1 <= found.action_min < found.action_max <= 1
    assert found.actions_outside == 0


def test_stats_count_actions_outside_the_bounds(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    with np.load(path) as archive:
        columns = dict(archive)
    columns["action"][:3, 0] = [1.5, -2, 1]
    np.savez(path, **columns)
    found = stats(load_dataset(path))
    assert (found.action_min, found.action_max) == (-2, 1.5)
    assert found.actions_outside == pytest.approx(2 / 40)


# --- what a user may pass ---


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("neorl2-dsmd", r"unknown data set 'neorl2-dsmd'; did you mean 'neorl2-dmsd'\?"),
        ("nowhere/a.npz", r"nowhere/a\.npz: no such file or folder"),
        ("gone.hdf5", r"gone\.hdf5: no such file or folder"),
        ("gone.toml", r"gone\.toml: no such file or folder"),
    ],
)
def test_what_is_not_there_is_named(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(source)


def test_other_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n")
    with pytest.raises(InputError, match=r"data\.csv: cannot tell its format from '\.csv'"):
        load_dataset(tmp_path / "data.csv")
    with pytest.raises(InputError, match=r"holds no data/metadata\.json; expected .* Minari"):
        load_dataset(tmp_path)


def test_views_are_those_of_the_loader(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    message = r"a, loader 'neorl2': unknown view 'qlearning'; expected one of: transitions"
    with pytest.raises(InputError, match=message):
        load_dataset(path, view="qlearning")
    (tmp_path / "b.hdf5").write_bytes(b"")
    with pytest.raises(InputError, match=r"unknown view 'qlearn'; did you mean 'qlearning'\?"):
        load_dataset(tmp_path / "b.hdf5", view="qlearn")


def test_files_of_a_card_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    npz(tmp_path / "sub" / "train.npz")
    npz(tmp_path / "val.npz", rows=10)
    toml = tmp_path / "mine.toml"
    toml.write_text(
        'id = "mine"\nversion = 3\ntitle = "mine"\nlicence = "none"\ncitation = "none"\n'
        '[source]\nloader = "neorl2"\nfiles = [{ name = "sub/train.npz" }]\n'
        'validation = [{ name = "val.npz" }]\n[expected]\nvalidation_episodes = 2\n'
    )
    monkeypatch.chdir(tmp_path / "sub")
    data = load_dataset("../mine.toml")
    assert (data.card.id, data.card.version, len(data)) == ("mine", 3, 20)
    assert data.validation is not None
    assert len(data.validation) == 10
    assert data.validation.validation is None
    assert "validation split" in repr(data.validation)


def test_several_files_follow_one_another(tmp_path: Path) -> None:
    files = [{"name": str(npz(tmp_path / f"{i}.npz", seed=i, rows=10 * i))} for i in (1, 2)]
    data = load_dataset(card(files, expected={"transitions": 30, "mean_return": 235 / 6}))
    assert len(data) == 30
    assert data.episode_returns.tolist() == [10, 35, 10, 35, 60, 85]


# --- the cache ---


def test_the_second_load_reads_no_source(tmp_path: Path, own_cache: Path) -> None:
    path = npz(tmp_path / "a.npz")
    first = load_dataset(path)
    text = json.loads((first.folder / "meta.json").read_text())
    assert text["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)  # same size and time: only reading would tell
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    again = load_dataset(path)
    np.testing.assert_array_equal(again.observations, first.observations)
    assert left_over(own_cache) == []


def test_a_changed_source_is_read_again(tmp_path: Path, own_cache: Path) -> None:
    path = npz(tmp_path / "a.npz")
    assert len(load_dataset(path)) == 20
    npz(path, rows=30)
    assert len(load_dataset(path)) == 30
    assert left_over(own_cache) == []


@pytest.mark.parametrize("harm", ["shorten", "remove", "meta", "retype", "empty", "columns"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    path = npz(tmp_path / "a.npz")
    first = load_dataset(path)
    expected = np.array(first.actions)
    column, meta = first.folder / "actions.npy", first.folder / "meta.json"
    if harm == "shorten":
        column.write_bytes(column.read_bytes()[:-8])
    elif harm == "remove":
        column.unlink()
    elif harm == "retype":  # the right size, another header
        data = column.read_bytes()
        column.write_bytes(data.replace(b"(20, 2)", b"(40, 1)"))
    elif harm == "empty":
        column.write_bytes(b"")
    elif harm == "columns":
        meta.write_text("[]")
    else:
        meta.write_text(meta.read_text()[:-20])
    with caplog.at_level(logging.WARNING):
        again = load_dataset(path)
    np.testing.assert_array_equal(again.actions, expected)
    assert "converted again" in caplog.text
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_verify_finds_a_flipped_bit_that_a_load_does_not(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    column = data.folder / "rewards.npy"
    content = bytearray(column.read_bytes())
    content[-1] ^= 1
    column.write_bytes(bytes(content))
    load_dataset(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"rewards\.npy: SHA-256 \w{64}, expected \w{64}"):
        verify(data.folder)
    with pytest.raises(InputError, match=r"rewards\.npy: SHA-256"):
        check(tmp_path / "a.npz")


LOAD = """
import sys, offrl
data = offrl.load_dataset(sys.argv[1])
print(len(data), int(data.rewards.sum(dtype=float)))
"""


def test_processes_that_convert_at_once_do_not_break_each_other(
    tmp_path: Path, own_cache: Path
) -> None:
    path = npz(tmp_path / "a.npz", rows=5000)
    workers = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(path)], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    outputs = {worker.communicate(timeout=60)[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 4
    assert outputs == {b"5000 12497500\n"}
    assert len(list((own_cache / "datasets").glob("a-v1-*"))) == 1
    assert left_over(own_cache) == []


def test_a_full_or_closed_cache_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path / "a.npz")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFFRL_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written: .*; set OFFRL_CACHE to a folder"):
        load_dataset(path)


def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(InputError, match="No space left on device; free some space"):
        load_dataset(npz(tmp_path / "a.npz"))
    assert left_over(own_cache) == []
    assert list((own_cache / "datasets").glob("a-v1-*")) == []


def test_cache_folder_is_the_platforms_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRL_CACHE", "~/x")
    assert cache_folder() == Path.home() / "x"
    monkeypatch.delenv("OFFRL_CACHE")
    assert cache_folder().name == "offrl"


# --- what a card expects ---


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"transitions": 21}, r"tiny: 20 transitions, expected 21; the data are not those of card"),
        ({"episodes": 5}, r"tiny: 4 episodes, expected 5"),
        ({"mean_return": 47.6}, r"tiny: mean return 47\.5, expected 47\.6"),
    ],
)
def test_data_other_than_expected_are_refused(
    tmp_path: Path, own_cache: Path, expected: dict[str, Any], message: str
) -> None:
    files = [{"name": str(npz(tmp_path / "a.npz"))}]
    with pytest.raises(InputError, match=message):
        load_dataset(card(files, expected=expected))
    assert list((own_cache / "datasets").glob("tiny-*")) == []
    load_dataset(card(files))
    with pytest.raises(InputError, match=message):  # also where the cache already holds them
        load_dataset(card(files, expected=expected))


def test_expected_validation_counts_are_checked(tmp_path: Path) -> None:
    files = [{"name": str(npz(tmp_path / "a.npz"))}]
    source = {"loader": "neorl2", "files": files, "validation": files}
    data = load_dataset(card(files, source=source, expected={"validation_transitions": 19}))
    with pytest.raises(InputError, match="20 validation transitions, expected 19"):
        _ = data.validation


def test_check_tells_what_it_compared(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    found = check(card([{"name": str(path), "md5": md5}], expected={"transitions": 20}))
    assert found.totals["train"].mean_return == 47.5
    assert set(found.columns["train"]) == set(NAMES)
    assert found.files == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}
    assert found.compared == [
        "the cache's checksums",
        "the published checksum of " + str(path),
        "transitions",
    ]


@pytest.mark.usefixtures("own_cache")
def test_check_finds_a_file_that_changed_since_it_was_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz")
    stamp = path.stat()
    load_dataset(path)
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(InputError, match=r"a\.npz: SHA-256 \w+, but \w+ when it was first read"):
        check(path)


# --- downloads ---


class Server:
    """A web server on this machine: paths and what it answers; it counts its requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()  # answers that break off half-way
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = outer.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if self.path in outer.cut else body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def remote(server: Server, data: bytes, *paths: str, md5: bool = True) -> Card:
    file: dict[str, Any] = {"name": "a.npz", "urls": [server.url + path for path in paths]}
    if md5:
        file["md5"] = hashlib.md5(data).hexdigest()
    return card([file])


def test_a_mirror_serves_what_the_first_address_lacks(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz", rows=100).read_bytes()
    server.files["/mirror/a.npz"] = data
    told: list[tuple[int, int]] = []
    loaded = load_dataset(
        remote(server, data, "/first/a.npz", "/mirror/a.npz"),
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(loaded) == 100
    assert server.asked == ["/first/a.npz", "/mirror/a.npz"]
    assert told[-1] == (len(data), len(data))
    assert (own_cache / "downloads" / "tiny-v1" / "a.npz").read_bytes() == data
    assert left_over(own_cache) == []
    load_dataset(remote(server, data, "/first/a.npz", "/mirror/a.npz"))
    assert len(server.asked) == 2


def test_a_wrong_checksum_leads_to_the_mirror_and_then_to_an_error(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/first/a.npz"] = data[:-1] + b"x"
    wrong = hashlib.md5(data[:-1] + b"x").hexdigest()
    source = remote(server, data, "/first/a.npz")
    with pytest.raises(InputError) as caught:
        load_dataset(source)
    message = str(caught.value)
    assert f"MD5 {wrong}, expected {hashlib.md5(data).hexdigest()}" in message
    assert "`offrl data fetch tiny`" in message
    assert "`offrl data fetch tiny --from DIR`" in message
    assert "\n" not in message
    assert not (own_cache / "downloads" / "tiny-v1" / "a.npz").exists()
    assert left_over(own_cache) == []
    server.files["/mirror/a.npz"] = data
    assert len(load_dataset(remote(server, data, "/first/a.npz", "/mirror/a.npz"))) == 20


def test_an_answer_that_breaks_off_is_not_kept(
    tmp_path: Path, own_cache: Path, server: Server
) -> None:
    data = npz(tmp_path / "a.npz", rows=1000).read_bytes()
    server.files["/a.npz"] = data
    server.cut.add("/a.npz")
    with pytest.raises(InputError, match=r"a\.npz is not on this machine and could not be down"):
        load_dataset(remote(server, data, "/a.npz", md5=False))
    assert not (own_cache / "downloads" / "tiny-v1" / "a.npz").exists()
    assert left_over(own_cache) == []


@pytest.mark.usefixtures("own_cache")
def test_without_a_published_checksum_the_one_found_is_noted(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    server.files["/a.npz"] = data
    source = remote(server, data, "/a.npz", md5=False)
    note = (
        f"a.npz has no published checksum; its SHA-256 here is {hashlib.sha256(data).hexdigest()}"
    )
    for _ in range(2):  # on the first load and on every later one
        caplog.clear()
        with caplog.at_level(logging.INFO):
            loaded = load_dataset(source)
        assert loaded.notes == [note]
        assert note in caplog.text
    assert "1 note>" in repr(loaded)


def test_a_server_that_is_not_there_is_one_line(own_cache: Path, server: Server) -> None:
    server.http.server_close()
    with pytest.raises(InputError, match=r"could not be downloaded \(http://127") as caught:
        load_dataset(remote(server, b"", "/a.npz"))
    assert "\n" not in str(caught.value)
    assert left_over(own_cache) == []


# --- files from a folder ---


def test_files_are_taken_from_a_folder_by_name_or_checksum(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    data = npz(folder / "other name.npz").read_bytes()
    npz(folder / "decoy.npz", seed=1)
    source = card([{"name": "a.npz", "md5": hashlib.md5(data).hexdigest(), "urls": ["http://x"]}])
    paths = fetch(source, folder)
    assert paths == [own_cache / "downloads" / "tiny-v1" / "a.npz"]
    assert paths[0].read_bytes() == data
    assert fetch(source) == paths  # now it is here, and no network is asked
    assert len(load_dataset(source)) == 20


def test_a_folder_without_the_file_is_named(tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    npz(folder / "decoy.npz")
    source = card([{"name": "a.npz", "md5": "0" * 32, "urls": ["http://x"]}])
    with pytest.raises(InputError, match=r"no a\.npz by name or by MD5 0+ among its 1 \.npz files"):
        fetch(source, folder)
    with pytest.raises(InputError, match=r"gone: no such folder; --from takes the folder"):
        fetch(source, tmp_path / "gone")
    bare = card([{"name": "a.npz", "urls": ["http://x"]}])
    with pytest.raises(InputError, match=r"no a\.npz by name \(the card has no checksum\)"):
        fetch(bare, folder)
    npz(folder / "a.npz")
    with pytest.raises(InputError, match=r"here/a\.npz: MD5 \w{32}, expected 0{32}"):
        fetch(source, folder)
    assert left_over(own_cache) == []
    assert not (own_cache / "downloads" / "tiny-v1" / "a.npz").exists()


@pytest.mark.usefixtures("own_cache")
def test_a_download_that_went_bad_is_refused(tmp_path: Path) -> None:
    data = npz(tmp_path / "a.npz").read_bytes()
    source = card([{"name": "a.npz", "md5": hashlib.md5(data).hexdigest(), "urls": ["http://x"]}])
    target = fetch(source, tmp_path)[0]
    target.write_bytes(b"bad")
    with pytest.raises(InputError, match=r"MD5 \w+, expected \w+; .*delete it and fetch a\.npz"):
        load_dataset(source)


# --- data that offrl makes ---


MAKER = """
from pathlib import Path
import numpy as np

def make(directory, progress=None):
    calls = Path(__file__).with_name("calls.txt")
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    if progress:
        progress(1, 1)
    rows = 4
    path = directory / "sub" / "made.npz"
    path.parent.mkdir()
    np.savez(path, obs=np.ones((rows, 2)), action=np.ones((rows, 1)), next_obs=np.ones((rows, 2)),
             reward=np.ones(rows), done=np.array([0, 0, 0, 1]), truncated=np.zeros(rows))
    return path
"""


def test_what_offrl_makes_is_made_once_and_kept(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    maker = tmp_path / "maker.py"
    maker.write_text(MAKER)
    source = card([], source={"loader": "neorl2", "maker": str(maker)})
    told: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO):
        data = load_dataset(source, progress=lambda done, total: told.append((done, total)))
    assert "tiny: making the data set (once" in caplog.text
    assert told == [(1, 1)]
    assert data.episode_returns.tolist() == [4.0]
    path = make(source)
    assert path == own_cache / "made" / "tiny-v1" / "sub" / "made.npz"
    assert (tmp_path / "calls.txt").read_text() == "x"
    assert make(source, again=True) == path
    assert (tmp_path / "calls.txt").read_text() == "xx"
    assert left_over(own_cache) == []


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    maker = tmp_path / "bad_maker.py"
    maker.write_text(
        "def make(directory, progress=None):\n    (directory / 'half').write_text('')\n"
        "    raise KeyboardInterrupt\n"
    )
    source = card([], source={"loader": "neorl2", "maker": str(maker)})
    with contextlib.suppress(KeyboardInterrupt):
        make(source)
    assert not (own_cache / "made" / "tiny-v1").exists()
    assert left_over(own_cache) == []


def test_published_data_are_not_made() -> None:
    with pytest.raises(InputError, match="neorl2-dmsd: is published, not made here"):
        make(find_card("neorl2-dmsd"))


def test_dataset_of_a_folder_that_went_away_is_loaded_by_load_dataset(tmp_path: Path) -> None:
    data = load_dataset(npz(tmp_path / "a.npz"))
    assert isinstance(Dataset(data.card, "train", data.folder), Dataset)
