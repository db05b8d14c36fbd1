"""From the text of a target to the callable, and what is said when there is none."""

import sys
import textwrap

import pytest

from corelet.base.errors import LoadError
from corelet.base.target import load_target, module_name_of_file


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder, text, name="site_app"):
    (folder / f"{name}.py").write_text(textwrap.dedent(text))


FORMS = """
    def application(environ, start_response): return ["application"]
    def other(environ, start_response): return ["other"]
    def make(name="made", *, loud=False):
        return lambda environ, start_response: [name.upper() if loud else name]
    class web:
        app = staticmethod(other)
"""


@pytest.mark.parametrize(
    ("text", "name", "answer"),
    [
        ("site_app", None, "application"),
        ("site_app", "other", "other"),
        ("site_app:other", None, "other"),
        ("site_app:other", "application", "other"),
        ("site_app:web.app", None, "other"),
        ("site_app:make()", None, "made"),
        ('site_app:make("x")', None, "x"),
        ('site_app:make("x", loud=True)', None, "X"),
        ("site_app", "make()", "made"),
        ("site_app: other ", None, "other"),
    ],
)
def test_every_form_of_a_module_target_is_read(folder, text, name, answer):
    module(folder, FORMS)
    assert load_target(text, is_file=False, name=name)({}, None) == [answer]


@pytest.mark.parametrize(("name", "answer"), [(None, "application"), ("other", "other"), ("make()", "made")])
def test_a_file_takes_its_callable_from_the_option(folder, name, answer):
    module(folder, FORMS)
    assert load_target("site_app.py", is_file=True, name=name)({}, None) == [answer]


def test_a_file_may_have_any_ending(folder):
    (folder / "site.wsgi").write_text("def application(e, s): return ['wsgi']")
    assert load_target("site.wsgi", is_file=True)({}, None) == ["wsgi"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("app.py", "uwsgi_file_app"),
        ("sub/my-app.py", "uwsgi_file_sub_my-app"),
        ("/srv/x.y/app.py", "uwsgi_file__srv_x_y_app"),
        ("site.wsgi", "uwsgi_file_site_wsgi"),
    ],
)
def test_a_files_module_has_uwsgis_name(path, name):
    assert module_name_of_file(path) == name


def test_app_is_served_where_there_is_no_application_and_the_log_says_so(folder, caplog):
    caplog.set_level("INFO", "corelet")
    module(folder, "def app(e, s): return ['app']")
    assert load_target("site_app", is_file=False)({}, None) == ["app"]
    assert "site_app has no application; its app is served" in caplog.text


def failure(*arguments, **keywords):
    with pytest.raises(LoadError) as caught:
        load_target(*arguments, **keywords)
    return caught.value


def test_a_missing_callable_is_answered_with_what_there_is(folder):
    module(
        folder,
        """
        from os.path import join
        class Base: pass
        class Web:
            def __call__(self, environ, start_response): return []
        web = Web()
        def create_app(): return web
        def serve(environ, start_response): return []
        number = 3
        _private = web
        """,
    )
    assert str(failure("site_app", False)) == (
        "site_app has no callable named application; callable in it: web, create_app(), serve (--callable names one)"
    )
    assert str(failure("site_app:create_ap()", False)).startswith("site_app has no create_ap; callable in it: web,")


def test_a_module_with_nothing_to_call_says_so(folder):
    module(folder, "x = 1")
    assert str(failure("site_app", False)) == "site_app has no callable named application; nothing in it can be called"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("number", "site_app:number is an object of type int, not a callable"),
        ("nothing()", "site_app:nothing() is None, not a callable"),
        ("number()", "site_app:number is an object of type int; it cannot be called"),
        ("make(number)", "its arguments must be literals"),
        ("make()()", "expected a name, a.dotted.name or a call such as"),
        ("1 + 1", "expected a name"),
        ("make(", "expected a name"),
        ("__import__('os').getcwd()", "expected a name"),
    ],
)
def test_what_cannot_be_served_is_refused(folder, expression, message):
    module(folder, "number = 3\ndef nothing(): return None\ndef make(x): return x")
    assert message in str(failure(f"site_app:{expression}", False))


@pytest.mark.parametrize("name", ["asgi", "framework"])
def test_an_asynchronous_application_is_recognised(folder, name):
    module(
        folder,
        """
        async def asgi(scope, receive, send): pass
        class Framework:
            async def __call__(self, scope, receive, send): pass
        framework = Framework()
        """,
    )
    assert f"site_app:{name} is an asynchronous (ASGI) application; corelet serves WSGI" in str(
        failure(f"site_app:{name}", False)
    )


def test_a_module_that_is_not_there_says_where_was_looked():
    message = str(failure("nowhere.deep:app", False))
    assert message.startswith("cannot load nowhere.deep: there is no module nowhere in /")
    assert message.endswith("(is chdir or pythonpath missing?)")


def test_a_file_given_as_a_module_is_told_the_option_for_files(folder):
    assert str(failure("nowhere.py", False)).endswith("; a file is given with --wsgi-file")


def test_an_import_that_fails_inside_the_application_is_the_applications_failure(folder):
    module(folder, "\nimport not_installed_here\n")
    error = failure("site_app", False)
    assert str(error) == ("cannot load site_app: it raised ModuleNotFoundError: No module named 'not_installed_here'")
    assert "site_app.py" in error.detail


def test_a_traceback_begins_at_the_applications_first_frame(folder):
    module(folder, "def inner():\n    return 1 / 0\ninner()\n")
    for error in (failure("site_app.py", True), failure("site_app", False)):
        lines = error.detail.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[1] == f'  File "{folder}/site_app.py", line 3, in <module>'
        assert lines[-1] == "ZeroDivisionError: division by zero"


def test_a_factory_that_fails_is_the_applications_failure(folder):
    module(folder, "def make():\n    raise ValueError('no database')\n")
    error = failure("site_app:make()", False)
    assert str(error) == "cannot load site_app:make(): it raised ValueError: no database"
    assert error.detail.splitlines()[1] == f'  File "{folder}/site_app.py", line 2, in make'


def test_a_syntax_error_shows_its_line(folder):
    module(folder, "def application(:\n")
    error = failure("site_app.py", True)
    assert "it raised SyntaxError" in str(error)
    assert f'File "{folder}/site_app.py", line 1' in error.detail


def test_an_exit_while_loading_is_an_error_and_not_the_end(folder):
    module(folder, "import sys\nsys.exit(3)\n")
    assert str(failure("site_app.py", True)) == "cannot load site_app.py: it called sys.exit(3)"


def test_a_file_that_failed_leaves_no_module_behind(folder):
    module(folder, "1/0")
    failure("site_app.py", True)
    assert "uwsgi_file_site_app" not in sys.modules


def test_a_file_that_is_not_there_is_named_in_full(folder):
    assert str(failure("nowhere.py", True)) == (
        f"cannot load nowhere.py: there is no such file (looked for as {folder}/nowhere.py; is chdir right?)"
    )
    (folder / "deep").mkdir()
    assert "it is a folder" in str(failure("deep", True))
