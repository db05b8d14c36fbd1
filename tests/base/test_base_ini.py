"""Ini files as uWSGI's users write them: what is read, what is refused, and what the refusal says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corelet.base.config import OPTIONS, resolve
from corelet.base.errors import ConfigError
from corelet.base.ini import load, read_ini, split_comment, split_section


def read(text, environ=(), **section):
    return read_ini(text, "uwsgi.ini", OPTIONS, dict(environ), **section)


def written(text, **more):
    """(key, text) of every mention; fails on any problem."""
    found = read(text, **more)
    assert found.problems == []
    return [(mention.option.name, mention.text) for mention in found.mentions]


def problems(text, **more):
    return read(text, **more).problems


def test_a_usual_file_becomes_a_configuration():
    found = read(
        "[uwsgi]\n"
        "module=project.wsgi:application\n"
        "http-socket = :8000\n"
        "\tmaster\t=\ttrue\n"
        "enable_threads = True\n"
        "processes    = 4\n"
        "\n"
        "; a comment\n"
        "  # another\n"
        "env = A=1\n"
        "env = B = 2\n"
        "chmod-socket\n"
        "die-on-term\n"
        "need-app = 0\n"
        "disable-logging ="
    )
    assert (found.problems, found.notes) == ([], [])
    config = resolve(found.mentions).config
    assert (config.module, config.http_socket, config.processes) == ("project.wsgi:application", (":8000",), 4)
    assert (config.master, config.enable_threads, config.need_app, config.disable_logging) == (True, True, False, True)
    assert config.env == ("A=1", "B = 2")
    assert config.chmod_socket == 0o666


def test_the_example_of_the_manual_is_read_without_a_word():
    page = (Path(__file__).resolve().parents[2] / "docs" / "options.md").read_text(encoding="utf-8")
    example = page[page.index("    [uwsgi]") : page.index("A key alone is a flag")]
    found = read(example, environ={"PORT": "80"})
    assert (found.problems, found.notes) == ([], [])
    config = resolve(found.mentions).config
    assert (config.chdir, config.http_socket, config.env) == ("/srv/app", (":80",), ("A=1", "B=100%"))


def test_a_mention_knows_its_file_line_and_key():
    (mention,) = read("[uwsgi]\n\nlisten = 5\n").mentions
    assert (mention.option.name, mention.text, mention.origin) == ("listen", "5", "uwsgi.ini:3: listen")


def test_lines_may_end_as_they_do_on_windows():
    assert written("[uwsgi]\r\nlisten = 5\r\nmaster\r\n") == [("listen", "5"), ("master", None)]


def test_a_line_ends_at_a_line_feed_and_nowhere_else():
    assert problems("[uwsgi]\nprocname = a\x0bb\x85c\u2028d\nlisten_ = 5") == [
        "uwsgi.ini:3: listen_ is no option of corelet; did you mean listen?"
    ]


# ---- sections ----


@pytest.mark.parametrize(
    ("text", "section", "value"),
    [
        ("[uwsgi]\nlisten = 1\n[dev]\nlisten = 2", "", "1"),
        ("[dev]\nlisten = 2\n[uwsgi]\nlisten = 1", "", "1"),
        ("[corelet]\nlisten = 3", "", "3"),
        ("[uwsgi]\nlisten = 1\n[dev]\nlisten = 2", "dev", "2"),
        ("[ uwsgi ]\nlisten = 1", "", "1"),
        ("[uwsgi] ; all there is\nlisten = 1", "", "1"),
    ],
)
def test_the_section_that_is_named_is_read_or_else_uwsgis_or_ours(text, section, value):
    assert written(text, section=section) == [("listen", value)]


def test_a_section_in_two_pieces_is_one():
    assert written("[uwsgi]\nlisten = 1\n[x]\nlisten = 2\n[uwsgi]\nmaster") == [("listen", "1"), ("master", None)]


def test_of_two_sections_that_could_be_meant_the_unread_one_is_noted():
    found = read("[corelet]\nlisten = 3\n[uwsgi]\nlisten = 1")
    assert [mention.text for mention in found.mentions] == ["1"]
    assert found.notes == ["uwsgi.ini: [uwsgi] is read; uwsgi.ini:corelet would read [corelet]"]
    assert read("[corelet]\nlisten = 3\n[uwsgi]\nlisten = 1", section="uwsgi").notes == []


@pytest.mark.parametrize(
    ("text", "section", "problem"),
    [
        (
            "[dev]\nlisten = 1\n[prod]\n[dev]",
            "",
            "expected a section [uwsgi] or [corelet]; the file has [dev], [prod]; uwsgi.ini:dev reads one",
        ),
        ("[uwsgi]", "prod", "expected a section [prod]; the file has [uwsgi]; uwsgi.ini:uwsgi reads one"),
        ("listen = 1", "", "expected a section [uwsgi] or [corelet]; the file has no section"),
        ("", "", "expected a section [uwsgi] or [corelet]; the file has no section"),
    ],
)
def test_a_missing_section_is_said_with_those_there_are(text, section, problem):
    assert problems(text, section=section) == [f"uwsgi.ini: {problem}"]


def test_a_line_above_all_sections_and_a_broken_header_are_mistakes():
    assert problems("listen = 1\n[uwsgi]\n[dev\nmaster") == [
        "uwsgi.ini:1: 'listen = 1' stands in no section; write [uwsgi] above it",
        "uwsgi.ini:3: expected [section]; got '[dev'",
        "uwsgi.ini:4: 'master' stands in no section; write [uwsgi] above it",
    ]


# ---- placeholders ----


def test_a_placeholder_is_the_value_of_a_key_above_it():
    text = "[uwsgi]\nbase = /srv\napp = %(base)/app\nchdir = %(app)\nsocket = %(chdir)/%(base).sock\n"
    assert written(text) == [("chdir", "/srv/app"), ("socket", "/srv/app//srv.sock")]


def test_a_repeated_key_stands_for_its_first_value_as_in_uwsgi():
    assert written("[uwsgi]\nsocket = :1\nsocket = :2\npidfile = %(socket)")[-1] == ("pidfile", ":1")


def test_a_key_alone_stands_for_true():
    assert written("[uwsgi]\nmaster\nneed-app = %(master)")[-1] == ("need-app", "true")


def test_a_variable_of_the_environment_is_filled_in_once():
    environ = {"PORT": "8000", "TRICK": "$(PORT)%(PORT)%d"}
    assert written("[uwsgi]\nsocket = :$(PORT)\nprocname = $(TRICK)", environ=environ) == [
        ("socket", ":8000"),
        ("procname", "$(PORT)%(PORT)%d"),
    ]


def test_two_percent_signs_are_one_and_one_before_any_other_character_is_text():
    assert written("[uwsgi]\nprocname = 100%% %% %Y 5% %%(x) $HOME $(kill 1) %(") == [
        ("procname", "100% % %Y 5% %(x) $HOME $(kill 1) %(")
    ]


def test_variables_of_the_access_line_are_left_to_it():
    text = "[uwsgi]\nbase = /x\nlog-format = %(base) %(addr) %(uri)\nlogformat=%(status)"
    assert written(text) == [("log-format", "/x %(addr) %(uri)"), ("log-format", "%(status)")]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("%d.sock", "%d: this version fills in %(key) and $(VARIABLE) only; write the value, or %%d for the text"),
        ("%k", "%k: this version fills in %(key) and $(VARIABLE) only; write the value, or %%k for the text"),
        ("%(later)", "%(later): no line before this one sets later"),
        ("%(%k * 2)", "%(%k * 2): this version does not calculate; write the value"),
        ("%(a b)", "%(a b): this version does not calculate; write the value"),
        ("$(NOWHERE)", "$(NOWHERE): the environment has no such variable; set it, or write the value"),
        ("@(/etc/x)", "@(/etc/x): this version puts no file's content into a value; write the value"),
    ],
)
def test_any_other_placeholder_is_refused(value, advice):
    assert problems(f"[uwsgi]\nprocname = {value}") == [f"uwsgi.ini:2: {advice}"]
    assert problems(f"[uwsgi]\nprocname = {value}\nlater = 1\nprocname-append = %(later)") == [f"uwsgi.ini:2: {advice}"]


def test_a_mistake_in_a_value_does_not_become_a_second_one_further_down():
    assert problems("[uwsgi]\nchdir = %d\nsocket = %(chdir)/a.sock") == [
        "uwsgi.ini:2: %d: this version fills in %(key) and $(VARIABLE) only; write the value, or %%d for the text"
    ]


# ---- keys ----


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("processses = 2", "processses is no option of corelet; did you mean processes?"),
        ("vacum = true", "vacum is no option of corelet; did you mean vacuum?"),
        ("need_ap", "need_ap is no option of corelet; did you mean need-app?"),
        ("wsgi-fil = app.py", "wsgi-fil is no option of corelet; did you mean wsgi-file?"),
        ("qqqqqqqq = 1", "qqqqqqqq is no option of corelet; corelet --help lists them"),
        ("env NAME = 1", "'env NAME' is no option of corelet; did you mean env = …?"),
        ("listen 100", "'listen 100' is no option of corelet; did you mean listen = …?"),
        ("= 5", "'' is no option of corelet; corelet --help lists them"),
        ("if-env = X", "if-env: this version has no conditions and loops in files; write the lines that hold here"),
        ("for = a b", "for: this version has no conditions and loops in files; write the lines that hold here"),
        ("endfor =", "endfor: this version has no conditions and loops in files; write the lines that hold here"),
        ("print = x", "print: this version has no conditions and loops in files; write the lines that hold here"),
        ("ini = b.ini", "ini: this version reads no file that a file names; name both on the command line"),
        ("yaml = b.yml", "yaml: this version reads no file that a file names; name both on the command line"),
        ("set-ph = a=b", "set-ph: this version does not know it; a key of one's own is set by key = value"),
    ],
)
def test_a_key_that_is_no_option_is_a_mistake_with_its_line(line, problem):
    assert problems(f"[uwsgi]\n\n{line}") == [f"uwsgi.ini:3: {problem}"]


def test_a_key_of_ones_own_is_allowed_if_a_placeholder_of_its_section_uses_it():
    assert problems("[uwsgi]\nbase_x = /srv\nchdir = %(base_x)") == []
    assert problems("[uwsgi]\nbase_x = /srv\n[dev]\nchdir = %(base_x)") == [
        "uwsgi.ini:2: base_x is no option of corelet; corelet --help lists them"
    ]


def test_all_mistakes_of_a_file_are_reported():
    found = read("[uwsgi]\nvacum\nsocket = %d/x\nlisten = many\nif-env = A\n")
    with pytest.raises(ConfigError) as caught:
        resolve(found.mentions, found.problems)
    assert str(caught.value).splitlines() == [
        "uwsgi.ini:2: vacum is no option of corelet; did you mean vacuum?",
        "uwsgi.ini:3: %d: this version fills in %(key) and $(VARIABLE) only; write the value, or %%d for the text",
        "uwsgi.ini:5: if-env: this version has no conditions and loops in files; write the lines that hold here",
        "uwsgi.ini:4: listen: expected a whole number, 1 or more; got 'many'",
    ]


def test_a_value_that_is_needed_and_not_there_is_a_mistake():
    for line in ("listen", "listen ="):
        with pytest.raises(ConfigError) as caught:
            resolve(read(f"[uwsgi]\n{line}").mentions)
        assert str(caught.value) == "uwsgi.ini:2: listen: needs a value (a whole number, 1 or more); none came"


# ---- comments behind a value ----


@pytest.mark.parametrize(
    ("line", "text", "comment"),
    [
        ("a = 1 ; one", "a = 1", "; one"),
        ("a = 1\t# one ; two", "a = 1", "# one ; two"),
        ("a = ; nothing", "a =", "; nothing"),
        ("master ; a = b", "master", "; a = b"),
        ("a = 1;2#3", "a = 1;2#3", ""),
        ("a = #fff", "a =", "#fff"),
        ("a =#fff", "a =#fff", ""),
        ("a = sh -c 'x ; y # z' ; w", "a = sh -c 'x ; y # z'", "; w"),
        ('a = "x # \\" # y" # z', 'a = "x # \\" # y"', "# z"),
        ("a = bob's ; isn't", "a = bob's", "; isn't"),
        ("a = 'open ; b", "a = 'open", "; b"),
    ],
)
def test_a_comment_begins_after_a_blank_and_outside_of_quotes(line, text, comment):
    assert split_comment(line) == (text, comment)


def test_a_comment_behind_a_value_is_dropped_with_a_note():
    found = read("[uwsgi]\nmax-requests = 500   ; Restart after this many\nmodule = app:app ;文\n")
    assert [mention.text for mention in found.mentions] == ["500", "app:app"]
    assert found.notes == [
        "uwsgi.ini:2: '; Restart after this many' is read as a comment; uWSGI takes it into the value",
        "uwsgi.ini:3: ';文' is read as a comment; uWSGI takes it into the value",
    ]


# ---- files ----


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("app.ini", ("app.ini", "")),
        ("app.ini:prod", ("app.ini", "prod")),
        ("app.ini:", ("app.ini", "")),
        ("/a:b/app.ini", ("/a:b/app.ini", "")),
        ("/a:b/app.ini:x", ("/a:b/app.ini", "x")),
        (":base", (":base", "")),
    ],
)
def test_the_section_stands_behind_the_last_colon_of_a_files_name(word, parts):
    assert split_section(word) == parts


def test_a_file_is_read_from_its_folder_with_its_section(tmp_path):
    (tmp_path / "app.ini").write_bytes(b"\xef\xbb\xbf[uwsgi]\nlisten = 1\n[prod]\nprocname = f\xc3\xbcr\n")
    (mention,) = load("app.ini:prod", folder=str(tmp_path)).mentions
    assert (mention.text, mention.origin) == ("für", "app.ini:4: procname")
    (mention,) = load(f"{tmp_path}/app.ini").mentions
    assert (mention.text, mention.origin) == ("1", f"{tmp_path}/app.ini:2: listen")


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    def refused(word):
        with pytest.raises(ConfigError) as caught:
            load(word, folder=str(tmp_path))
        return str(caught.value)

    (tmp_path / "latin.ini").write_bytes(b"[uwsgi]\n# f\xfcr\n")
    (tmp_path / "huge.ini").write_bytes(b"\n" * 1_000_001)
    advice = "name a file in the form of .ini"
    assert refused("no.ini:x") == f"no.ini: No such file or directory; it is looked for in {tmp_path}; {advice}"
    assert refused(f"{tmp_path}/no.ini") == f"{tmp_path}/no.ini: No such file or directory; {advice}"
    assert refused(str(tmp_path)) == f"{tmp_path}: Is a directory; {advice}"
    assert refused("latin.ini") == "latin.ini:2: expected UTF-8; got the byte 0xfc; save the file as UTF-8"
    assert refused("huge.ini") == "huge.ini: expected a configuration; got more than 1000000 bytes"


@given(st.text(alphabet=st.sampled_from("[]uwsgi=listen %()$@;#'\"\\\n\r\t:5k"), max_size=80))
def test_any_text_is_read_or_refused_and_every_refusal_names_the_file(text):
    found = read("[uwsgi]\n" + text, environ={"k": "v"})
    assert all(problem.startswith("uwsgi.ini") for problem in found.problems)
    assert all(mention.origin.startswith("uwsgi.ini:") for mention in found.mentions)


def test_a_broken_header_is_named_with_its_line_if_no_section_is_left():
    _mentions, problems, *_ = read_ini("\n[uwsgi\nmaster = true\n", "app.ini", OPTIONS, {})
    assert problems[0].startswith("app.ini: expected a section [uwsgi] or [corelet]; the file has no section")
    assert problems[1:] == ["app.ini:2: expected [section]; got '[uwsgi'"]
