"""/etc/resolv.conf: what we write, and that the old file comes back whoever puts it back."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from telehelper.errors import ResolverError
from telehelper.messages import SetDns
from telehelper.netd import resolvconf
from telehelper.netd.resolvconf import MAX_FILE, Former, Layer, Owner, ResolvConf, layers, render, without

if TYPE_CHECKING:
    from pathlib import Path

ORDER = SetDns("auto", "198.19.240.2", ("shop.svc.cluster.local", "svc.cluster.local"))
DEAD = Owner(4_000_000, 1, "a-b")  # above the kernel's largest pid by default
OLD = "# corp\nnameserver 10.0.0.1\nsearch corp.example\n"


class Etc:
    """A resolv.conf of our own in a directory of our own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "resolv.conf"
        self.conf = ResolvConf(self.path)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def written(owner: Owner, former: Former) -> bytes:
    return Layer(owner, former, render(ORDER)).text().encode("latin-1")


def me() -> Owner:
    owner = Owner.of(os.getpid())
    assert owner is not None
    return owner


# --- text --------------------------------------------------------------------------------------------------------


def test_our_file() -> None:
    lines = written(Owner(7, 99, "boot"), Former("file", "old\n")).decode().splitlines()
    assert lines[0] == "# telemagic netd 7 99 boot"
    assert json.loads(lines[1].removeprefix("# was ")) == {"kind": "file", "text": "old\n"}
    assert lines[3:] == [
        "nameserver 198.19.240.2",
        "search shop.svc.cluster.local svc.cluster.local",
        "options ndots:1 timeout:1 attempts:3",
    ]


def test_search_may_be_missing() -> None:
    none = SetDns("auto", ORDER.nameserver, ())
    assert "search" not in render(none)


# --- processes ---------------------------------------------------------------------------------------------------


def proc(folder: Path, state: str) -> Path:
    (folder / "7").mkdir(parents=True)
    (folder / "sys/kernel/random").mkdir(parents=True)
    (folder / "sys/kernel/random/boot_id").write_text("boot\n")
    rest = " ".join(str(number) for number in range(4, 23))  # fields 4 to 22; the last is the start time
    (folder / "7/stat").write_text(f"7 (a ) b) {state} {rest} 0 0\n")
    return folder


def test_a_process_is_known_by_its_start(tmp_path: Path) -> None:
    assert Owner.of(7, proc(tmp_path, "S")) == Owner(7, 22, "boot")
    assert Owner.of(8, tmp_path) is None
    assert me().pid == os.getpid()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    assert Owner.of(7, proc(tmp_path, "Z")) is None


def test_without_proc_there_is_nothing_to_be_sure_of(tmp_path: Path) -> None:
    with pytest.raises(ResolverError, match="/proc is not mounted"):
        ResolvConf(tmp_path / "resolv.conf", proc=tmp_path)


# --- there and back ----------------------------------------------------------------------------------------------


def test_a_regular_file_is_rewritten_in_place(etc: Etc) -> None:
    etc.path.write_text(OLD)
    etc.path.chmod(0o640)
    before = etc.path.stat()
    etc.conf.point(ORDER)
    assert "nameserver 198.19.240.2\n" in etc.path.read_text()
    assert etc.conf.restore()
    after = etc.path.stat()
    assert etc.path.read_text() == OLD
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert etc.names() == ["resolv.conf"]


@pytest.mark.parametrize("old", [b"", b"nameserver 10.0.0.1", bytes(range(1, 256)), b"x" * 5000])
def test_any_bytes_come_back(etc: Etc, old: bytes) -> None:
    etc.path.write_bytes(old)
    etc.conf.point(ORDER)
    assert etc.path.read_bytes() != old
    assert etc.conf.restore()
    assert etc.path.read_bytes() == old


def test_a_link_is_replaced_and_not_written_through(etc: Etc) -> None:
    stub = etc.path.with_name("stub")
    stub.write_text("nameserver 127.0.0.53\n")
    etc.path.symlink_to("stub")
    etc.conf.point(ORDER)
    assert not etc.path.is_symlink()
    assert etc.path.stat().st_mode & 0o777 == 0o644
    assert stub.read_text() == "nameserver 127.0.0.53\n"
    assert etc.conf.restore()
    assert os.readlink(etc.path) == "stub"
    assert etc.names() == ["resolv.conf", "stub"]


def test_no_file_is_no_file_again(etc: Etc) -> None:
    etc.conf.point(ORDER)
    assert etc.path.exists()
    assert etc.conf.restore()
    assert etc.names() == []


def test_restoring_twice_is_restoring_once(etc: Etc) -> None:
    etc.path.write_text(OLD)
    etc.conf.point(ORDER)
    assert [etc.conf.restore(), etc.conf.restore()] == [True, False]
    assert etc.path.read_text() == OLD


@pytest.mark.parametrize("newer", ["nameserver 10.9.9.9\n", "# telemagic netd 1 1 a\n# was {}\n", ""])
def test_what_others_wrote_after_us_stays(etc: Etc, newer: str) -> None:
    etc.path.write_text(OLD)
    etc.conf.point(ORDER)
    etc.path.write_text(newer)
    assert not etc.conf.restore()
    assert not etc.conf.heal()
    assert etc.path.read_text() == newer


def test_an_edited_record_is_not_believed(etc: Etc) -> None:
    etc.path.write_text("# telemagic netd 1 1 a\n# was {broken}\nnameserver 10.0.0.1\n")
    assert not etc.conf.heal()


def test_what_a_killed_writer_left_is_removed(etc: Etc) -> None:
    etc.path.with_name(f".resolv.conf.telemagic-{os.getpid()}").write_text("half")
    assert not etc.conf.restore()
    assert etc.names() == []


# --- others of us ------------------------------------------------------------------------------------------------


def test_a_dead_netds_file_is_repaired(etc: Etc) -> None:
    etc.path.write_bytes(written(DEAD, Former("file", OLD)))
    assert etc.conf.heal()
    assert etc.path.read_text() == OLD
    assert not etc.conf.heal()


def test_a_dead_netds_link_is_repaired(etc: Etc) -> None:
    etc.path.write_bytes(written(DEAD, Former("link", "/run/stub")))
    assert etc.conf.heal()
    assert os.readlink(etc.path) == "/run/stub"


# --- several connections -----------------------------------------------------------------------------------------

OTHER = SetDns("auto", "198.19.240.4", ("ml.svc.cluster.local",))


class Two:
    """Two connections' netds on one file: ours, and that of process 1, which lives too."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "resolv.conf"
        self.path.write_text(OLD)
        self.first, self.second = ResolvConf(self.path), ResolvConf(self.path)
        owner = Owner.of(os.getppid())
        assert owner is not None
        self.second._owner = owner

    def nameservers(self) -> list[str]:
        return [line for line in self.path.read_text().splitlines() if line.startswith("nameserver")]


@pytest.fixture
def two(tmp_path: Path) -> Two:
    made = Two(tmp_path)
    made.first.point(ORDER)
    made.second.point(OTHER)
    assert made.nameservers() == ["nameserver 198.19.240.4"]
    assert [layer.owner.pid for layer in layers(made.path.read_text())] == [os.getppid(), os.getpid()]
    return made


def test_the_upper_one_leaves_first(two: Two) -> None:
    assert two.second.restore()
    assert two.nameservers() == ["nameserver 198.19.240.2"]
    assert two.first.restore()
    assert two.path.read_text() == OLD


def test_the_lower_one_leaves_first(two: Two) -> None:
    assert two.first.restore()
    assert two.nameservers() == ["nameserver 198.19.240.4"]
    (layer,) = layers(two.path.read_text())
    assert layer.former == Former("file", OLD)
    assert not two.first.restore()
    assert two.second.restore()
    assert two.path.read_text() == OLD


def test_the_lower_one_replaced_a_link_and_leaves_first(tmp_path: Path) -> None:
    made = Two(tmp_path)
    made.path.unlink()
    made.path.symlink_to("stub")
    made.first.point(ORDER)
    made.second.point(OTHER)
    assert made.first.restore()
    assert made.nameservers() == ["nameserver 198.19.240.4"]
    assert made.second.restore()
    assert os.readlink(made.path) == "stub"


def test_one_that_points_again_comes_up_and_is_there_once(two: Two) -> None:
    two.first.point(ORDER)
    assert two.nameservers() == ["nameserver 198.19.240.2"]
    assert [layer.owner.pid for layer in layers(two.path.read_text())] == [os.getpid(), os.getppid()]
    two.second.restore()
    two.first.restore()
    assert two.path.read_text() == OLD


def test_dead_ones_are_taken_out_from_between(etc: Etc) -> None:
    lower = Layer(DEAD, Former("file", OLD), render(ORDER))
    upper = Layer(me(), Former("file", lower.text()), render(OTHER))
    etc.path.write_text(Layer(DEAD, Former("file", upper.text()), render(ORDER)).text())
    assert etc.conf.heal()
    assert layers(etc.path.read_text()) == [upper._replace(former=Former("file", OLD))]


def test_a_stack_read_and_written() -> None:
    stack = [
        Layer(me(), Former("file", Layer(DEAD, Former("absent"), "a\n").text()), "b\n"),
        Layer(DEAD, Former("absent"), "a\n"),
    ]
    assert layers(stack[0].text()) == stack
    assert without(stack, lambda _: False) == Former("file", stack[0].text())
    assert without(stack, lambda _: True) == Former("absent")
    assert layers("nameserver 10.0.0.1\n") == []


def test_what_would_be_too_long_with_ours_is_left_alone(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    etc.path.write_text(OLD)
    monkeypatch.setattr(resolvconf, "MAX_FILE", 100)
    with pytest.raises(ResolverError, match="longer than 100 bytes"):
        etc.conf.point(ORDER)
    assert etc.path.read_text() == OLD


def test_a_stack_that_grows_too_long_is_refused(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    before = two.path.read_text()
    monkeypatch.setattr(resolvconf, "MAX_FILE", 300)
    with pytest.raises(ResolverError, match="longer than 300 bytes"):
        two.first.point(ORDER)
    assert two.path.read_text() == before


def test_another_netd_is_waited_for_but_not_for_ever(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    etc.path.write_text(OLD)
    etc.conf.point(ORDER)
    pauses: list[float] = []
    monkeypatch.setattr(resolvconf, "time", SimpleNamespace(sleep=pauses.append))
    directory = os.open(etc.path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    assert etc.conf.restore()
    os.close(directory)
    assert len(pauses) == resolvconf.LOCK_TRIES
    assert etc.path.read_text() == OLD


def test_overwritten_while_another_netd_was_waited_for(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    etc.path.write_text(OLD)
    etc.conf.point(ORDER)
    monkeypatch.setattr(resolvconf, "time", SimpleNamespace(sleep=lambda _: etc.path.write_text("newer")))
    directory = os.open(etc.path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    assert not etc.conf.restore()
    os.close(directory)
    assert etc.path.read_text() == "newer"


def test_the_same_pid_after_a_reboot_is_another_process(etc: Etc) -> None:
    now = me()
    etc.path.write_bytes(
        written(Owner(now.pid, now.started, "other-boot".replace("other", "0")), Former("absent"))
    )
    assert not etc.conf.heal()  # "boot" has letters that no boot id has: not our line
    etc.path.write_bytes(written(Owner(now.pid, now.started, "0a-1b"), Former("absent")))
    assert etc.conf.heal()
    assert etc.names() == []


# --- what may be in the way --------------------------------------------------------------------------------------


def test_a_file_we_could_not_carry_is_left_alone(etc: Etc) -> None:
    etc.path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ResolverError, match="longer than"):
        etc.conf.point(ORDER)
    assert etc.path.stat().st_size == MAX_FILE + 1


def test_a_path_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    conf = ResolvConf(tmp_path / "missing" / "resolv.conf")
    with pytest.raises(ResolverError, match=os.strerror(errno.ENOENT)) as caught:
        conf.point(ORDER)
    assert "lsattr" in caught.value.hint


@pytest.mark.parametrize("mode", [0o444, 0o400])
def test_a_read_only_file_keeps_its_mode(etc: Etc, mode: int) -> None:
    etc.path.write_text(OLD)
    etc.path.chmod(mode)
    etc.conf.point(ORDER)
    assert "198.19.240.2" in etc.path.read_text()
    assert etc.path.stat().st_mode & 0o777 == mode
    assert etc.conf.restore()
    assert etc.path.read_text() == OLD
    assert etc.path.stat().st_mode & 0o777 == mode
