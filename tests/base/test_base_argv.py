"""The command line: getopt_long's rules as uWSGI's users know them, and mistakes that name themselves."""

import pytest

from corelet.base.argv import configure, read
from corelet.base.errors import ConfigError

ONLY_INI = (
    "this version reads configuration files in the form of .ini only; write it as one, or give its options here as "
    "--key=value"
)


def config(line):
    return configure(line.split()).config


def problems(line):
    with pytest.raises(ConfigError) as caught:
        configure(line.split())
    return str(caught.value).splitlines()


def test_the_documented_command_of_uwsgi_is_accepted_word_for_word():
    resolved = configure(["--asyncio", "10", "--http-socket", ":9090", "--greenlet", "--wsgi-file", "app.py"])
    config = resolved.config
    assert config.asyncio == 10
    assert config.cores == 10
    assert config.http_socket == (":9090",)
    assert config.greenlet is True
    assert config.wsgi_file == "app.py"
    assert config.socket_timeout >= 30
    assert config.loop == "asyncio"
    assert resolved.notes == ()
    (address,) = config.addresses
    assert (address.kind, address.host, address.port, address.protocol) == ("tcp4", "0.0.0.0", 9090, "http")


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("--listen 5", "listen", 5),
        ("--listen=5", "listen", 5),
        ("-l 5", "listen", 5),
        ("-l5", "listen", 5),
        ("--backlog 5", "listen", 5),
        ("-p4", "processes", 4),
        ("--workers 4", "processes", 4),
        ("-s :3031", "socket", (":3031",)),
        ("-s:3031", "socket", (":3031",)),
        ("-w app", "module", "app"),
        ("--wsgi app", "module", "app"),
        ("-H /venv", "virtualenv", "/venv"),
        ("--file x.py", "wsgi_file", "x.py"),
        ("--wsgi-fil x.py", "wsgi_file", "x.py"),
        ("--wsgi_file x.py", "wsgi_file", "x.py"),
        ("--http_keepalive=5", "http_keepalive", 5.0),
        ("--async 7", "cores", 7),
        ("--asyncio 1", "cores", 1),
        ("--log-format=a=b", "log_format", "a=b"),
        ("--manage-script", "manage_script_name", True),
    ],
)
def test_every_way_to_write_an_option_is_read(line, field, value):
    assert getattr(config(line), field) == value


def test_a_cluster_of_letters_sets_every_flag_and_the_last_may_take_a_value():
    clustered = config("-MLp4")
    assert (clustered.master, clustered.disable_logging, clustered.processes) == (True, True, 4)


@pytest.mark.parametrize("word", ["false", "False", "no", "off", "0"])
def test_a_flag_can_be_switched_off(word):
    assert config(f"--need-app={word}").need_app is False


@pytest.mark.parametrize("word", ["true", "True", "yes", "on", "1"])
def test_a_flag_can_be_switched_on_by_a_word(word):
    assert config(f"--master={word}").master is True


def test_a_flag_refuses_any_other_word():
    assert problems("--master=tue") == ["--master: expected true or false, or no value at all; got 'tue'"]


@pytest.mark.parametrize(
    ("line", "mode"),
    [
        ("--chmod-socket", 0o666),
        ("--chmod-socket=660", 0o660),
        ("--chmod-socket 660", 0o660),
        ("-C 660", 0o660),
        ("-C660", 0o660),
        ("-C", 0o666),
        ("--chmod-socket --master", 0o666),
    ],
)
def test_chmod_socket_takes_its_value_after_an_equals_sign_a_space_or_not_at_all(line, mode):
    assert config(line).chmod_socket == mode


def test_a_word_that_is_no_mode_is_not_eaten_by_chmod_socket():
    assert problems("--chmod-socket app.py") == ["'app.py' stands alone; write --wsgi-file app.py"]


def test_repeatable_options_gather_in_their_order_and_others_are_won_by_the_last():
    both = config("-s :1 --socket :2 -s:3 --listen 5 --listen 6")
    assert both.socket == (":1", ":2", ":3")
    assert both.listen == 6


def test_an_unknown_option_names_the_nearest_one():
    assert problems("--asynco 10") == ["--asynco is no option of corelet; did you mean --asyncio?"]
    assert problems("--procfesses=2") == ["--procfesses is no option of corelet; did you mean --processes?"]
    assert problems("--vacum") == ["--vacum is no option of corelet; did you mean --vacuum?"]


def test_an_unknown_option_without_a_neighbour_points_to_the_help():
    assert problems("--qqqqqqqq") == ["--qqqqqqqq is no option of corelet; --help lists them"]
    assert problems("-Q") == ["-Q is no option of corelet; --help lists them"]


def test_a_prefix_of_several_options_names_them():
    assert problems("--http-max-hea 3") == ["--http-max-hea could be any of --http-max-head, --http-max-headers"]


def test_a_missing_value_says_what_is_missing():
    assert problems("--listen") == ["--listen: needs a value (a whole number, 1 or more); none came"]


def test_an_option_in_the_place_of_a_value_is_a_missing_value():
    assert problems("--socket --master") == ["--socket: needs a value (ADDRESS); none came"]
    assert problems("--socket -M") == ["--socket: needs a value (ADDRESS); none came"]


def test_a_value_that_only_looks_like_an_option_is_a_value():
    assert config("--log-format -%(addr)-").log_format == "-%(addr)-"
    assert config("--env --FOO=1").env == ("--FOO=1",)


@pytest.mark.parametrize("text", ["ten", "1_0", "+5", "1.5", "٥", "", "5x"])
def test_an_integer_is_written_in_plain_digits(text):
    assert problems(f"--listen={text}") == [f"--listen: expected a whole number, 1 or more; got {text!r}"]


def test_a_number_outside_its_range_says_the_range():
    assert problems("--asyncio 0") == ["--asyncio: expected a whole number, 1 or more; got 0"]
    assert problems("--harakiri -1") == ["--harakiri: expected a number of seconds, 0 or more; got -1"]


def test_seconds_may_have_a_fraction():
    assert config("--harakiri 0.25").harakiri == 0.25
    assert problems("--harakiri 1e3") == ["--harakiri: expected a number of seconds, 0 or more; got '1e3'"]
    assert problems("--harakiri nan") == ["--harakiri: expected a number of seconds, 0 or more; got 'nan'"]


def test_a_choice_names_its_words():
    assert problems("--http-eof never") == ["--http-eof: expected one of half, gone; got 'never'"]
    assert config("--protocol HTTP").protocol == "http"


@pytest.mark.parametrize("text", ["999", "rw-", "0o660", "-660", "77777"])
def test_a_mode_is_octal(text):
    assert problems(f"--chmod-socket={text}") == [f"--chmod-socket: expected an octal mode such as 660; got {text!r}"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("uwsgi.yml", f"uwsgi.yml: {ONLY_INI}"),
        (
            "app.json:prod",
            f"app.json:prod: {ONLY_INI}",
        ),
        ("app.py", "'app.py' stands alone; write --wsgi-file app.py"),
        ("site.wsgi", "'site.wsgi' stands alone; write --wsgi-file site.wsgi"),
        ("app:app", "'app:app' stands alone; write --module app:app"),
        (":9090", "':9090' stands alone; write --socket :9090 or --http-socket :9090"),
        ("127.0.0.1:80", "'127.0.0.1:80' stands alone; write --socket 127.0.0.1:80 or --http-socket 127.0.0.1:80"),
        ("what", "'what' stands alone: corelet takes options only; --help lists them"),
        ("-", "'-' stands alone: corelet takes options only; --help lists them"),
        ("-- --master", "'--master' stands alone: corelet takes options only; --help lists them"),
        ("--master true", "'true' stands alone; write --master=true as one word"),
    ],
)
def test_a_word_that_stands_alone_is_answered_with_what_to_write(word, hint):
    assert problems(word) == [hint]


def test_all_mistakes_of_a_line_are_reported_at_once():
    assert problems("--asynco 10 --listen many --socket --master app.xml --http-socket :x -p4x") == [
        "--asynco is no option of corelet; did you mean --asyncio?",
        f"app.xml: {ONLY_INI}",
        "--listen: expected a whole number, 1 or more; got 'many'",
        "--socket: needs a value (ADDRESS); none came",
        "-p: expected a whole number from 1 to 1000; got '4x'",
        "--http-socket: :x: a port is a number from 0 to 65535; got x",
    ]


def test_reading_keeps_the_order_and_the_origin_of_every_mention():
    mentions, found = read(["--uwsgi-so", ":1", "-M", "--async=3"])
    assert found == []
    assert [(m.option.name, m.text, m.origin) for m in mentions] == [
        ("uwsgi-socket", ":1", "--uwsgi-so"),
        ("master", None, "-M"),
        ("async", "3", "--async"),
    ]


# ---- ini files ----


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.ini").write_text("[uwsgi]\nlisten = 5\nsocket = :2\n[prod]\nlisten = $(BACKLOG)\n")
    return tmp_path


@pytest.mark.parametrize("words", [["app.ini"], ["--ini", "app.ini"], ["--ini=app.ini:uwsgi"], ["app.ini:uwsgi"]])
def test_an_ini_file_is_named_with_or_without_its_option(folder, words):
    resolved = configure(words, folder=str(folder))
    assert (resolved.config.listen, resolved.config.socket) == (5, (":2",))
    assert resolved.config.ini == (words[-1].removeprefix("--ini="),)
    assert resolved.origins["listen"] == "app.ini:2: listen"


def test_values_of_words_and_files_hold_in_the_order_in_which_they_stand(folder):
    before = configure(["-s", ":1", "--listen", "9", "app.ini", "-s:3"], folder=str(folder)).config
    assert (before.listen, before.socket) == (5, (":1", ":2", ":3"))
    after = configure(["app.ini", "--listen", "9"], folder=str(folder)).config
    assert after.listen == 9
    both = configure(["app.ini", "app.ini:prod"], folder=str(folder), environ={"BACKLOG": "7"}).config
    assert (both.listen, both.ini) == (7, ("app.ini", "app.ini:prod"))


def test_an_ini_file_is_read_again_at_each_call(folder):
    words = ["app.ini"]
    assert configure(words, folder=str(folder)).config.listen == 5
    (folder / "app.ini").write_text("[uwsgi]\nlisten = 6\n")
    assert configure(words, folder=str(folder)).config.listen == 6


def test_mistakes_of_words_and_files_are_reported_together(folder):
    (folder / "bad.ini").write_text("[uwsgi]\nvacum = 1\nlisten = 0\n")
    with pytest.raises(ConfigError) as caught:
        configure(["--asynco", "1", "bad.ini", "no.ini", "--ini", "-p", "x"], folder=str(folder))
    assert str(caught.value).splitlines() == [
        "--asynco is no option of corelet; did you mean --asyncio?",
        "bad.ini:2: vacum is no option of corelet; did you mean vacuum?",
        f"no.ini: No such file or directory; it is looked for in {folder}; name a file in the form of .ini",
        "bad.ini:3: listen: expected a whole number, 1 or more; got 0",
        "--ini: needs a value (FILE[:SECTION]); none came",
        "-p: expected a whole number from 1 to 1000; got 'x'",
    ]


def test_notes_of_files_come_before_those_of_values(folder):
    (folder / "app.ini").write_text("[uwsgi]\nthreads = 2 ; two\n")
    assert configure(["app.ini"], folder=str(folder)).notes == (
        "app.ini:2: '; two' is read as a comment; uWSGI takes it into the value",
        "threads 2: requests run on cores; asyncio N sets how many at once",
    )
