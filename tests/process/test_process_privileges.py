"""Whom the server becomes, decided from names and numbers, and done in processes of their own."""

import grp
import os
import pwd
import stat
import subprocess
import sys

import pytest
from harness import PATIENCE_SECONDS, ROOT

from corelet.base.config import Config
from corelet.base.errors import ConfigError, OperatorError
from corelet.process.privileges import Identity, apply_umask, become, identity_of

NOBODY = pwd.getpwnam("nobody")
AS_ROOT = Identity(0, 0, (0, 20))
AS_USER = Identity(1000, 1001, (27,))  # a list of groups need not hold one's own


def user_with_more_groups():
    """A user of this machine whom /etc/group lists somewhere, or nobody."""
    members = [name for group in grp.getgrall() for name in group.gr_mem]
    return pwd.getpwnam(next((name for name in members if name in {user.pw_name for user in pwd.getpwall()}), "nobody"))


def unknown_number(taken):
    return next(number for number in range(2**31, 2**31 + 1000) if number not in taken)


def in_a_process(source):
    """Run this Python text on its own and return what it printed; its tracebacks fail the test."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "server"]))
    prelude = "import os\nfrom corelet.process.privileges import *\nfrom corelet.base.errors import *\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + source], env={**os.environ, "PYTHONPATH": path}, check=False,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- the decision, as root ----


def test_without_an_option_nobody_else_is_asked_for():
    assert identity_of(Config(), AS_ROOT) is None
    assert identity_of(Config(), AS_USER) is None


def test_a_user_alone_brings_his_primary_group_and_all_groups_the_system_lists():
    user = user_with_more_groups()
    identity = identity_of(Config(uid=user.pw_name), AS_ROOT)
    assert (identity.uid, identity.gid) == (user.pw_uid, user.pw_gid)
    assert set(identity.groups) == set(os.getgrouplist(user.pw_name, user.pw_gid))
    assert len(set(identity.groups)) == len(identity.groups)


def test_a_number_is_the_user_it_belongs_to():
    user = user_with_more_groups()
    assert identity_of(Config(uid=str(user.pw_uid)), AS_ROOT) == identity_of(Config(uid=user.pw_name), AS_ROOT)


def test_nothing_of_the_groups_we_have_as_root_is_kept():
    assert 20 not in identity_of(Config(uid="nobody"), AS_ROOT).groups
    assert identity_of(Config(gid=str(NOBODY.pw_gid)), AS_ROOT).groups == (NOBODY.pw_gid,)


def test_gid_replaces_the_primary_group_and_the_users_others_stay():
    user = user_with_more_groups()
    identity = identity_of(Config(uid=user.pw_name, gid="12345"), AS_ROOT)
    assert (identity.uid, identity.gid) == (user.pw_uid, 12345)
    assert set(identity.groups) == set(os.getgrouplist(user.pw_name, 12345))


def test_gid_is_a_name_or_a_number():
    group = grp.getgrall()[-1]
    assert identity_of(Config(gid=group.gr_name), AS_ROOT).gid == group.gr_gid
    assert identity_of(Config(gid=str(group.gr_gid)), AS_ROOT).gid == group.gr_gid


def test_gid_alone_leaves_the_user_as_it_is():
    assert identity_of(Config(gid="12345"), AS_ROOT) == Identity(0, 12345, (12345,))


def test_no_initgroups_leaves_gid_and_add_gid_only():
    user = user_with_more_groups()
    config = Config(uid=user.pw_name, no_initgroups=True, add_gid=("12345", "12346", "12345"))
    assert identity_of(config, AS_ROOT) == Identity(user.pw_uid, user.pw_gid, (user.pw_gid, 12345, 12346))


def test_add_gid_adds_to_what_the_user_has_and_alone_to_what_we_have():
    assert 12345 in identity_of(Config(uid="nobody", add_gid=("12345",)), AS_ROOT).groups
    assert identity_of(Config(add_gid=("12345",)), AS_ROOT) == Identity(0, 0, (0, 20, 12345))


def test_a_number_that_no_user_has_needs_a_group():
    uid = unknown_number({user.pw_uid for user in pwd.getpwall()})
    with pytest.raises(ConfigError, match=f"^uid {uid}: .* so no group is known; give gid too$"):
        identity_of(Config(uid=str(uid)), AS_ROOT)
    assert identity_of(Config(uid=str(uid), gid="7"), AS_ROOT) == Identity(uid, 7, (7,))


@pytest.mark.parametrize("own", [AS_ROOT, AS_USER])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uid": "nobody-of-that-name"}, r"^uid nobody-of-that-name: the system has no such user; `getent passwd`"),
        ({"uid": "-1"}, r"^uid -1: the system has no such user"),
        ({"uid": "٣"}, r"^uid ٣: the system has no such user"),
        ({"gid": "no-such-group"}, r"^gid no-such-group: the system has no such group; `getent group`"),
        ({"add_gid": ("0", "no-such-group")}, r"^add-gid no-such-group: the system has no such group"),
        ({"uid": "4294967295"}, r"^uid 4294967295: expected a name, or a number from 0 to 4294967294$"),
        ({"gid": "9" * 5000}, r"expected a name, or a number from 0 to 4294967294$"),
        ({"chroot": "/srv/jail"}, r"^chroot /srv/jail: not supported: .*imports.*; use a container, or RootDirectory="),
    ],
)
def test_what_cannot_be_is_refused_whoever_we_are(own, options, message):
    with pytest.raises(ConfigError, match=message):
        identity_of(Config(**options), own)


# ---- the decision, without root ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uid": "nobody"}, "^uid nobody: only root may become another user, and we are user 1000; start as root, or"),
        ({"uid": "0"}, "^uid 0: only root may become another user"),
        ({"gid": "12345"}, "^gid 12345: only root may change its group, and ours is 1001; start as root"),
        ({"gid": "27"}, "^gid 27: only root may change its group"),
        ({"add_gid": ("27", "12345")}, "^add-gid 12345: only root may add a group, and we are user 1000"),
    ],
)
def test_without_root_another_identity_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        identity_of(Config(**options), AS_USER)


def test_without_root_the_identity_we_have_is_no_change():
    assert identity_of(Config(uid="1000", gid="1001", add_gid=("27", "1001")), AS_USER) is None


def test_what_this_process_is_is_looked_up():
    assert Identity.current() == Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()))
    assert identity_of(Config(uid=str(os.geteuid()), gid=str(os.getegid()), no_initgroups=True)) in (
        None,
        Identity(os.geteuid(), os.getegid(), (os.getegid(),)),
    )


# ---- the deed ----


def test_one_becomes_the_identity_for_good_or_is_told_what_is_missing():
    printed = in_a_process(
        f"try:\n"
        f"    become(Identity({NOBODY.pw_uid}, 12345, (12345, 12346)))\n"
        f"    print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))\n"
        f"except OperatorError as error:\n"
        f"    print(error)\n"
    )
    if os.geteuid() == 0:
        assert printed == f"{(NOBODY.pw_uid,) * 3} {(12345,) * 3} [12345, 12346]"
    else:
        assert "Operation not permitted; the capabilities SETUID and SETGID are needed" in printed


@pytest.mark.parametrize("gid", [12345, 0])
def test_a_launcher_that_pinned_the_capabilities_makes_the_drop_worthless_and_is_told(gid):
    # prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP): setuid() then leaves every capability in place.
    printed = in_a_process(
        f"import ctypes\n"
        f"ctypes.CDLL(None).prctl(28, 1 << 2, 0, 0, 0)\n"
        f"try:\n"
        f"    become(Identity({NOBODY.pw_uid}, {gid}, ({gid},)))\n"
        f"except OperatorError as error:\n"
        f"    print(error)\n"
    )
    if os.geteuid() == 0:
        assert "we could become root again, so nothing would have been dropped; start us without pinned" in printed
    else:
        assert "Operation not permitted" in printed


def test_without_the_right_to_change_nothing_is_changed_and_the_error_says_what_is_needed():
    printed = in_a_process(
        f"if os.geteuid() == 0:\n"
        f"    become(Identity({NOBODY.pw_uid}, {NOBODY.pw_gid}, ({NOBODY.pw_gid},)))\n"
        f"try:\n"
        f"    become(Identity(0, 0, (0,)))\n"
        f"except OperatorError as error:\n"
        f"    print(error)\n"
    )
    assert printed == (
        "cannot become user 0 and group 0: Operation not permitted; the capabilities SETUID and SETGID are needed, or "
        "let the container or unit start us as that user, and leave uid and gid out"
    )


def test_the_new_identity_is_logged_with_its_names(caplog):
    own = Identity(os.getuid(), os.getgid(), tuple(os.getgroups()))
    if os.geteuid() != 0:
        with pytest.raises(OperatorError):
            become(own)
        return
    caplog.set_level("INFO", "corelet.process")
    become(own)
    groups = ", ".join(map(str, own.groups))
    assert caplog.messages == [f"now user root (0), group {grp.getgrgid(own.gid).gr_name} ({own.gid}), groups {groups}"]


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (None, 0o640)])
def test_the_umask_is_set_only_if_the_option_asks_for_one(tmp_path, mask, mode):
    before = os.umask(0o027)
    try:
        apply_umask(Config(umask=mask))
        (tmp_path / "file").touch(0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
