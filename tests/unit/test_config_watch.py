"""FileWatcher: which changes of a file are noticed."""

import os
from pathlib import Path

from proxy.config.watch import FileWatcher


def write(path: Path, text: str, mtime: float = 1000.0) -> Path:
    path.write_text(text)
    os.utime(path, (mtime, mtime))
    return path


def test_new_content_is_reported_once(tmp_path: Path) -> None:
    """A changed file is in one poll's answer and not in the next."""
    secret = write(tmp_path / "secret", "one")
    watcher = FileWatcher([secret])
    assert watcher.poll() == set()
    secret.write_text("two!")
    assert watcher.poll() == {secret}
    assert watcher.poll() == set()


def test_touching_a_file_is_no_change(tmp_path: Path) -> None:
    """A new time stamp with the old content is not reported."""
    secret = write(tmp_path / "secret", "one")
    watcher = FileWatcher([secret])
    write(secret, "one", mtime=2000.0)
    assert watcher.poll() == set()


def test_a_file_replaced_by_rename_is_noticed(tmp_path: Path) -> None:
    """Editors and secret agents write a new file and rename it over the old one."""
    secret = write(tmp_path / "secret", "one")
    watcher = FileWatcher([secret])
    write(tmp_path / "new", "two").replace(secret)
    assert watcher.poll() == {secret}


def test_a_swapped_kubernetes_volume_is_noticed(tmp_path: Path) -> None:
    """A projected volume changes by swapping the ..data symlink; the file's own path stays."""
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "password", version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "password").symlink_to("..data/password")
    watcher = FileWatcher([tmp_path / "password"])
    (tmp_path / "..next").symlink_to("v2")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert watcher.poll() == {tmp_path / "password"}


def test_a_second_write_within_the_clocks_grain_is_noticed(tmp_path: Path) -> None:
    """Same length, same inode, written just now: the content is read again although no stamp may differ."""
    secret = write(tmp_path / "secret", "aaaa")
    watcher = FileWatcher([secret], now=lambda: secret.stat().st_ctime)
    with secret.open("r+") as file:
        file.write("bbbb")
    assert watcher.poll() == {secret}


def test_a_file_that_vanishes_keeps_its_last_content(tmp_path: Path) -> None:
    """Neither the removal nor the return of the same content is a change; other content is."""
    secret = write(tmp_path / "secret", "one")
    watcher = FileWatcher([secret])
    secret.unlink()
    assert watcher.poll() == set()
    write(secret, "one")
    assert watcher.poll() == set()
    secret.unlink()
    write(secret, "two")
    assert watcher.poll() == {secret}


def test_a_file_that_appears_is_reported(tmp_path: Path) -> None:
    """A secret that was missing at start is noticed when it arrives."""
    watcher = FileWatcher([tmp_path / "late"])
    assert watcher.poll() == set()
    late = write(tmp_path / "late", "here")
    assert watcher.poll() == {late}


def test_watching_other_files_keeps_what_was_seen(tmp_path: Path) -> None:
    """After a reload a change between the two polls is still reported, and dropped files no longer are."""
    kept, dropped = write(tmp_path / "kept", "one"), write(tmp_path / "dropped", "one")
    watcher = FileWatcher([kept, dropped])
    kept.write_text("two!")
    dropped.write_text("two!")
    watcher.watch([kept])
    assert watcher.poll() == {kept}
