"""Loading what the configuration names, in a process prepared for it, and choosing among mounts."""

import os
import sys

import pytest

from corelet.base.config import Config
from corelet.base.errors import ConfigError, LoadError
from corelet.base.loading import Applications, load_applications

HELLO = """
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""


def call(application):
    return b"".join(application({}, lambda status, headers: None))


@pytest.fixture(autouse=True)
def process(tmp_path, monkeypatch):
    """A folder to work in; whatever loading does to the process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text=HELLO):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_wsgi_file_is_a_module_of_uwsgis_name(process):
    write(process / "sub" / "my-app.py", HELLO + "name, path = __name__, __file__\n")
    applications = load_applications(Config(wsgi_file="sub/my-app.py"))
    assert call(applications.only) == b"hello"
    module = sys.modules["uwsgi_file_sub_my-app"]
    assert module.name == "uwsgi_file_sub_my-app"
    assert module.path == str(process / "sub" / "my-app.py")


def test_the_current_folder_is_on_the_module_path_and_the_files_own_folder_is_not(process):
    write(process / "beside.py", "x = 1")
    write(process / "sub" / "app.py", "import beside\n" + HELLO)
    load_applications(Config(wsgi_file="sub/app.py"))
    assert sys.path[0] == str(process)
    assert str(process / "sub") not in sys.path


def test_chdir_comes_before_everything_else(process):
    write(process / "project" / "app.py")
    load_applications(Config(chdir="project", wsgi_file="app.py", pythonpath=("lib",)))
    assert os.getcwd() == str(process / "project")
    assert sys.path[:2] == [str(process / "project" / "lib"), str(process / "project")]


def test_a_later_pythonpath_goes_first_and_a_pattern_is_expanded(process):
    for name in ("a/one", "a/two", "b"):
        (process / name).mkdir(parents=True)
    write(process / "app.py")
    load_applications(Config(wsgi_file="app.py", pythonpath=("a/*", "b")))
    assert sys.path[:4] == [str(process / "b"), str(process / "a/two"), str(process / "a/one"), str(process)]


def test_env_is_set_before_the_application_is_loaded(process, monkeypatch):
    monkeypatch.setenv("CORELET_TEST_A", "old")
    monkeypatch.setenv("CORELET_TEST_B", "old")
    write(process / "app.py", 'import os\nseen = os.environ["CORELET_TEST_A"]\n' + HELLO)
    load_applications(Config(wsgi_file="app.py", env=("CORELET_TEST_A=1=2", "CORELET_TEST_B=")))
    assert sys.modules["uwsgi_file_app"].seen == "1=2"
    assert os.environ["CORELET_TEST_B"] == ""


def test_a_virtualenvs_packages_go_before_corelets_own_and_after_the_library(process):
    packages = process / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    write(packages / "only_there.py", HELLO)
    write(packages / "linked.pth", str(process / "editable"))
    (process / "editable").mkdir()
    sys.path[:] = ["/library", "/own/site-packages", "/more"]
    applications = load_applications(Config(virtualenv="venv", module="only_there"))
    assert call(applications.only) == b"hello"
    assert sys.path == [
        str(process), "/library", str(packages), str(process / "editable"), "/own/site-packages", "/more",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(chdir="nowhere"), "^chdir nowhere: No such file or directory; name a folder"),
        (Config(env=("FOO",)), "^env FOO: expected NAME=VALUE$"),
        (Config(env=("=1",)), "^env =1: expected NAME=VALUE$"),
        (Config(virtualenv="nowhere"), "^virtualenv nowhere: there is no such folder$"),
        (Config(virtualenv="plain"), "^virtualenv plain: it is no virtual environment; make it with python3"),
        (Config(virtualenv="old"), r"^virtualenv old: it is of python2\.7, corelet runs on python3\.\d+; make it with"),
        (Config(mount=("api.py",)), r"^mount api\.py: expected /prefix=module:callable or /prefix=file\.py$"),
        (Config(mount=("api=x",)), "^mount api=x: expected /prefix="),
        (Config(mount=("/api=",)), "^mount /api=: expected /prefix="),
        (Config(mount=("/a=x", "/a/=y")), "^mount /a/=y: /a is mounted already, on x$"),
    ],
)
def test_what_the_process_cannot_be_given_is_refused(process, config, message):
    (process / "plain").mkdir()
    (process / "old" / "lib" / "python2.7").mkdir(parents=True)
    with pytest.raises(ConfigError, match=message):
        load_applications(config)


def test_the_environment_that_corelet_runs_in_is_a_virtualenv_already_in_use(process):
    write(process / "app.py")
    before = list(sys.path)
    load_applications(Config(virtualenv=sys.prefix, wsgi_file="app.py"))
    assert sys.path[1:] == before


def test_module_goes_before_wsgi_file_as_in_uwsgi(process):
    write(process / "first.py", HELLO.replace("hello", "module"))
    write(process / "second.py", "raise RuntimeError")
    assert call(load_applications(Config(module="first", wsgi_file="second.py")).only) == b"module"


def test_no_application_is_an_error_that_says_how_to_name_one():
    with pytest.raises(LoadError, match=r"give --wsgi-file app\.py or --module"):
        load_applications(Config())


def test_without_need_app_a_failing_application_is_logged_and_nothing_is_served(process, caplog):
    write(process / "app.py", "1/0")
    applications = load_applications(Config(wsgi_file="app.py", need_app=False))
    assert applications.only is None
    assert applications.resolve({"PATH_INFO": "/"}) is None
    assert "cannot load app.py: it raised ZeroDivisionError" in caplog.text
    assert "no application is loaded" in caplog.text


# ---- mounts ----


def mounted(process, *mounts, **options):
    for name in ("root", "a", "b"):
        write(process / f"{name}.py", HELLO.replace("hello", name))
    return load_applications(Config(mount=mounts, **options))


def served(applications, variables):
    application = applications.resolve(variables)
    return None if application is None else call(application)


@pytest.mark.parametrize(
    ("path", "body", "script_name", "path_info"),
    [
        ("/a", b"a", "/a", ""),
        ("/a/", b"a", "/a", "/"),
        ("/a/x", b"a", "/a", "/x"),
        ("/ab", b"a", "", "/ab"),
        ("/a/b", b"b", "/a/b", ""),
        ("/a/b/c", b"b", "/a/b", "/c"),
        ("/other", b"a", "", "/other"),
    ],
)
def test_manage_script_name_moves_the_longest_prefix_as_uwsgi_does(process, path, body, script_name, path_info):
    applications = mounted(process, "/a=a.py", "/a/b=b", manage_script_name=True)
    variables = {"PATH_INFO": path, "SCRIPT_NAME": ""}
    assert served(applications, variables) == body
    assert (variables["SCRIPT_NAME"], variables["PATH_INFO"]) == (script_name, path_info)


@pytest.mark.parametrize(
    ("variables", "body"),
    [
        ({"PATH_INFO": "/z", "SCRIPT_NAME": "/a/b"}, b"b"),
        ({"PATH_INFO": "/z", "SCRIPT_NAME": "/a/b/"}, b"b"),
        ({"PATH_INFO": "/z", "UWSGI_APPID": "/a/b", "SCRIPT_NAME": "/a"}, b"b"),
        ({"PATH_INFO": "/a/b/c", "SCRIPT_NAME": "/a"}, b"a"),
        ({"PATH_INFO": "/a/b", "SCRIPT_NAME": ""}, b"a"),
        ({"PATH_INFO": "/a/b", "UWSGI_APPID": ""}, b"a"),
        ({}, b"a"),
    ],
)
def test_without_it_the_mount_is_chosen_by_name_and_nothing_is_moved(process, variables, body):
    applications = mounted(process, "/a=a.py", "/a/b=b.py")
    before = dict(variables)
    assert served(applications, variables) == body
    assert variables == before


def test_a_script_name_that_nginx_sent_is_replaced_by_the_mount(process):
    applications = mounted(process, "/a=a.py", manage_script_name=True)
    variables = {"PATH_INFO": "/a/x", "SCRIPT_NAME": "/a"}
    applications.resolve(variables)
    assert variables == {"PATH_INFO": "/x", "SCRIPT_NAME": "/a"}


def test_a_mount_at_the_root_is_the_default(process):
    applications = mounted(process, "/a=a.py", "/=root:application")
    assert served(applications, {"PATH_INFO": "/"}) == b"root"
    assert [prefix for prefix, _ in applications.mounts] == ["/a"]


def test_a_default_application_beside_mounts_serves_the_rest(process):
    applications = mounted(process, "/a=a.py", wsgi_file="root.py")
    assert served(applications, {"SCRIPT_NAME": "/a"}) == b"a"
    assert served(applications, {"SCRIPT_NAME": "/x"}) == b"root"
    assert applications.only is None


def test_with_no_default_app_only_mounts_are_served(process):
    applications = mounted(process, "/a=a.py", no_default_app=True)
    assert served(applications, {"SCRIPT_NAME": "/a"}) == b"a"
    assert served(applications, {"SCRIPT_NAME": "/x"}) is None


def test_a_mount_alone_at_the_root_needs_no_choice(process):
    assert call(mounted(process, "/=root.py").only) == b"root"


def test_the_callable_option_holds_for_mounts_too(process):
    write(process / "c.py", HELLO.replace("application", "web"))
    assert call(load_applications(Config(mount=("/=c.py",), callable="web")).only) == b"hello"


def test_a_mount_that_fails_stops_the_start(process):
    with pytest.raises(LoadError, match=r"cannot load nowhere\.py: there is no such file"):
        mounted(process, "/a=a.py", "/b=nowhere.py")


def test_a_single_application_is_found_without_looking_at_the_request():
    def application(environ, start_response):
        return []

    applications = Applications(application)
    assert applications.only is application
    assert applications.resolve(None) is application
