"""A file or folder has its final name only when it is whole, whoever writes it."""

import errno
import os
import time
from pathlib import Path

import pytest

from storage import files
from storage.errors import MissingObject, StoreError
from storage.files import arriving, arriving_directory, explained, replacing, write_chunks, write_whole


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_nobody_sees_a_file_before_it_is_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "before")
    with replacing(tmp_path / "a") as file:
        file.write(b"after")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"before"
    assert (tmp_path / "a").read_bytes() == b"after"
    assert names(tmp_path) == ["a"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "before")
    for writer in (replacing, arriving):
        with pytest.raises(ZeroDivisionError), writer(tmp_path / "a"):
            raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "before" and names(tmp_path) == ["a"]


def test_text_is_written_as_utf8_whatever_the_locale(tmp_path: Path) -> None:
    write_whole(tmp_path / "new folder" / "ä", "größer")
    assert (tmp_path / "new folder" / "ä").read_bytes() == "größer".encode()


def test_a_library_that_looks_at_the_suffix_gets_a_path_with_it(tmp_path: Path) -> None:
    with arriving(tmp_path / "model.keras") as part:
        assert part.suffix == ".keras" and part.parent == tmp_path and not part.exists()
        part.write_bytes(b"whole")
    assert (tmp_path / "model.keras").read_bytes() == b"whole" and names(tmp_path) == ["model.keras"]


def test_chunks_are_written_whole_and_hashed(tmp_path: Path) -> None:
    sha256 = write_chunks(tmp_path / "a", (b"ab", b"c"))
    assert (tmp_path / "a").read_bytes() == b"abc"
    assert sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("durable", [True, False])
def test_durable_waits_for_the_content_before_the_name_and_for_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def noted_rename(source: Path, target: Path) -> None:
        done.append("name")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_rename)
    write_whole(tmp_path / "a", "x", durable=durable)
    assert done == (["file", "name", "folder"] if durable else ["name"])


def test_a_folder_takes_its_name_with_all_that_is_in_it(tmp_path: Path) -> None:
    with arriving_directory(tmp_path / "deep" / "made") as part:
        (part / "a").write_text("x")
        assert not (tmp_path / "deep" / "made").exists()
    assert names(tmp_path / "deep") == ["made"] and names(tmp_path / "deep" / "made") == ["a"]


def test_a_folder_whose_writer_fails_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), arriving_directory(tmp_path / "made") as part:
        (part / "a").write_text("x")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_folder_that_another_run_made_meanwhile_stands(tmp_path: Path) -> None:
    with arriving_directory(tmp_path / "made") as part:
        (part / "a").write_text("second")
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "a").write_text("first")
    assert (tmp_path / "made" / "a").read_text() == "first" and names(tmp_path) == ["made"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "made").write_text("a file")
    with pytest.raises(StoreError, match="can't write"), arriving_directory(tmp_path / "made"):
        pass
    assert names(tmp_path) == ["made"]


def test_what_killed_writers_left_goes_after_a_day_and_not_before(tmp_path: Path) -> None:
    old, young = tmp_path / f"{files.UNFINISHED}old", tmp_path / f"{files.UNFINISHED}young"
    for left, hours in ((old, 25), (young, 23)):
        left.mkdir()
        at = time.time() - 3600 * hours
        os.utime(left, (at, at))
    with arriving_directory(tmp_path / "made"):
        pass
    assert names(tmp_path) == [young.name, "made"]


def test_an_absent_file_is_missing_to_a_reader_and_an_error_to_a_writer(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match="there is no such object"), explained("read", tmp_path / "no"):
        (tmp_path / "no").read_bytes()
    with pytest.raises(StoreError, match="can't write") as caught, explained("write", tmp_path / "no"):
        (tmp_path / "no").read_bytes()
    assert not isinstance(caught.value, MissingObject)


def test_an_error_that_was_explained_already_is_not_explained_again(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=r"^as it was$"), explained("write", tmp_path):
        raise MissingObject("as it was")


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.ENOSPC, "free space"), (errno.EIO, "said by the disk")]
)
def test_what_to_do_is_said_where_it_is_known(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice), explained("write", tmp_path):
        raise OSError(number, "said by the disk")
