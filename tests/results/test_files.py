import os
import stat
from pathlib import Path

import pytest

from pool_bench.errors import UsageError
from pool_bench.results.files import check_writable, write_atomically


@pytest.mark.parametrize(
    ("umask", "before", "after"),
    [
        (0o022, None, 0o640),
        (0o000, None, 0o640),
        (0o027, None, 0o640),
        (0o077, None, 0o600),
        (0o022, 0o600, 0o600),
        (0o022, 0o644, 0o640),
    ],
)
def test_a_file_is_replaced_whole_and_never_readable_by_more_than_its_group(
    tmp_path: Path, umask: int, before: int | None, after: int
) -> None:
    path = tmp_path / "deep" / "er" / "result.json"
    mask = os.umask(umask)
    try:
        write_atomically(path, b"one")
        if before is not None:
            path.chmod(before)
        write_atomically(path, b"two")
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == after
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"cannot write .*result\.json: no space left on device"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    write_atomically(link, b"x")
    assert link.is_symlink()
    assert real.read_bytes() == b"x"


def test_a_device_is_written_to_and_never_replaced() -> None:
    check_writable(Path("/dev/null"), option="--json")
    write_atomically(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "result.json", option="--json")
    check_writable(tmp_path / "b" / "c", option="--output-dir", directory=True)
    assert list(tmp_path.iterdir()) == []


def test_the_check_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")
    check_writable(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_paths_are_refused_in_one_line_that_names_option_and_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cases = [
        (tmp_path, False, "it is a directory"),
        (tmp_path / "file" / "x.json", False, "not a directory"),
        (tmp_path / "file", True, "not a directory"),
        (Path("/proc/x.json"), False, ""),
        (tmp_path / ("x" * 300), False, "name too long"),
    ]
    for path, directory, reason in cases:
        with pytest.raises(UsageError) as caught:
            check_writable(path, option="--json", directory=directory)
        message = str(caught.value)
        assert message.startswith(f"--json: cannot write {path}: ")
        assert reason in message
        assert "\n" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="permission denied"):
            check_writable(tmp_path / "x.json")
    finally:
        tmp_path.chmod(0o700)
