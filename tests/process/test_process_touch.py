"""Files that somebody touches to give an order."""

import os

import pytest

from corelet.base.config import Config
from corelet.process.touch import TouchFiles


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "reload"
    path.write_text("")
    os.utime(path, ns=(0, 0))
    return path


def watched(path, option="touch_reload"):
    return TouchFiles(Config(**{option: (str(path),)}))


@pytest.mark.parametrize("option", ["touch-reload", "touch-chain-reload", "touch-workers-reload"])
def test_a_touch_is_told_once_with_its_option(path, option):
    files = watched(path, option.replace("-", "_"))
    assert files.changed() == []
    os.utime(path, ns=(0, 1))
    assert files.changed() == [(option, str(path))]
    assert files.changed() == []


def test_an_earlier_time_is_a_touch_too(path):
    os.utime(path, ns=(0, 1000))
    files = watched(path)
    os.utime(path, ns=(0, 1))
    assert files.changed() == [("touch-reload", str(path))]


def test_a_new_size_is_a_touch(path):
    files = watched(path)
    path.write_text("x")
    os.utime(path, ns=(0, 0))
    assert files.changed() == [("touch-reload", str(path))]


def test_another_file_in_its_place_is_a_touch(path):
    files = watched(path)
    other = path.with_name("other")
    other.write_text("")
    os.utime(other, ns=(0, 0))
    other.replace(path)
    assert files.changed() == [("touch-reload", str(path))]


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path):
    path = tmp_path / "folder" / "later"
    files = watched(path)
    assert files.changed() == []
    path.parent.mkdir()
    assert files.changed() == []
    path.write_text("")
    assert files.changed() == [("touch-reload", str(path))]
    assert files.changed() == []


def test_removal_is_no_touch_and_coming_back_is_one_whatever_the_file(path):
    files = watched(path)
    aside = path.with_name("aside")
    path.rename(aside)
    assert files.changed() == []
    aside.rename(path)  # the same inode, time and size
    assert files.changed() == [("touch-reload", str(path))]


def test_a_folder_is_touched_when_something_is_put_into_it(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    os.utime(folder, ns=(0, 0))
    files = watched(folder)
    (folder / "new").write_text("")
    assert files.changed() == [("touch-reload", str(folder))]


def test_a_link_is_touched_when_it_is_set_to_another_file(path):
    other, link = path.with_name("other"), path.with_name("link")
    other.write_text("")
    link.symlink_to(path)
    files = watched(link)
    link.unlink()
    link.symlink_to(other)
    assert files.changed() == [("touch-reload", str(link))]


def test_several_files_are_told_of_each_and_in_the_order_of_the_options(tmp_path):
    names = [str(tmp_path / name) for name in "abcd"]
    files = TouchFiles(
        Config(touch_workers_reload=(names[0],), touch_reload=(names[1], names[2]), touch_chain_reload=(names[0],))
    )
    for name in names:
        open(name, "w").close()
    assert files.changed() == [
        ("touch-reload", names[1]),
        ("touch-reload", names[2]),
        ("touch-chain-reload", names[0]),
        ("touch-workers-reload", names[0]),
    ]


def test_a_relative_path_stays_the_same_file_after_a_change_of_folder(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    files = watched(path.name)
    monkeypatch.chdir("/")
    os.utime(path, ns=(0, 1))
    assert files.changed() == [("touch-reload", str(path))]


def test_what_cannot_be_looked_at_is_warned_of_once_and_taken_to_be_as_it_was(path, caplog):
    """A loop of links stands for a folder that we may not search: root may search every one."""
    files = watched(path)
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(path)
    assert [files.changed(), files.changed()] == [[], []]
    assert caplog.messages == [
        f"touch-reload {path}: cannot be looked at: Too many levels of symbolic links; no touch is seen until it can"
    ]
    path.unlink()
    aside.rename(path)
    assert files.changed() == []


def test_without_options_there_is_nothing_to_look_at():
    files = TouchFiles(Config())
    assert files.paths == ()
    assert files.changed() == []
