"""Configuration: precedence, and errors that name the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sprat import config
from sprat.config import Config
from sprat.errors import ConfigError
from sprat.task_config import MODEL_TASKS, TaskConfig, ThresholdsConfig, TierConfig
from sprat.values import (
    Destination,
    ExtractSpec,
    Grammar,
    Label,
    LabelSet,
    Question,
    QuestionSet,
    RouteSet,
    Sampling,
    TransformSpec,
)


def toml(folder: Path, text: str | bytes) -> Path:
    path = folder / "sprat.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path | None = None, **sources: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.load(path, **{"environment": {}, **sources})
    return caught.value


def test_config_defaults_need_no_file() -> None:
    assert config.load(environment={}) == Config()


def test_config_precedence_is_defaults_toml_environment_flags(tmp_path: Path) -> None:
    path = toml(tmp_path, "[server]\ngrace_s = 1\ndrain_s = 1\nmax_concurrent_calls = 1\n")
    made = config.load(
        path,
        environment={"SPRAT_SERVER__DRAIN_S": "2", "SPRAT_SERVER__MAX_CONCURRENT_CALLS": "2"},
        flags={"server.max_concurrent_calls": 3, "server.grace_s": None},
    )
    assert (made.server.grace_s, made.server.drain_s, made.server.max_concurrent_calls) == (1, 2, 3)
    assert made.server.max_message_bytes == Config().server.max_message_bytes


def test_config_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRAT_COMPUTE__THREADS", "3")
    assert config.load().compute.threads == 3


def test_config_flags_none_was_not_given_but_false_was() -> None:
    made = config.load(
        environment={"SPRAT_SERVER__REFLECTION": "true", "SPRAT_SERVER__INSECURE": "true"},
        flags={"server.reflection": False, "server.insecure": None},
    )
    assert made.server.reflection is False
    assert made.server.insecure is True


@pytest.mark.parametrize("name", ["SPRAT_HOME", "SPRAT_TEST_DATA", "SPRAT_KERNELS", "OTHER__X"])
def test_config_environment_ignores_names_that_are_no_path(name: str) -> None:
    assert config.load(environment={name: "anything"}) == Config()


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("true", True), ("False", False), ("0", False)]
)
def test_config_environment_reads_switches(value: str, expected: bool) -> None:
    made = config.load(environment={"SPRAT_SERVER__INSECURE": value})
    assert made.server.insecure is expected


def test_config_environment_reaches_tasks_and_models() -> None:
    made = config.load(
        environment={
            "SPRAT_TASKS__TICKETS__BUNDLE": "tickets",
            "SPRAT_TASKS__TICKETS__ACCEPT_AT": "0.8",
            "SPRAT_TASKS__TICKETS__TIERS__STATIC__ACCEPT_AT": "0.9",
            "SPRAT_MODELS__SMOL__SEQUENCES": "2",
        }
    )
    assert made.tasks["tickets"] == TaskConfig(
        bundle="tickets", accept_at=0.8, tiers={"static": TierConfig(accept_at=0.9)}
    )
    assert made.models["smol"].sequences == 2


def test_config_models_and_tasks_from_toml(tmp_path: Path) -> None:
    made = config.load(
        toml(tmp_path, '[models."smollm2-135m"]\n[tasks.tickets]\nbundle = "./tickets"\n'),
        environment={},
    )
    assert made.models["smollm2-135m"] == config.ModelConfig()
    assert made.tasks["tickets"] == TaskConfig(bundle="./tickets")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[server]\ngrace_s = -1", "server.grace_s", "greater than or equal to 0"),
        ("[server]\ngrace_s = inf", "server.grace_s", "finite"),
        ("[server]\ndrain_s = nan", "server.drain_s", "finite"),
        ("[server]\nlisten = 8501", "server.listen", "valid string"),
        ("[server]\nlisten = ['a']", "server.listen", "valid string"),
        ("[server]\ninsecure = 'perhaps'", "server.insecure", "boolean"),
        ("[server]\nmax_message_bytes = 10", "server.max_message_bytes", "1024"),
        ("[server]\nmax_message_bytes = 2147483648", "server.max_message_bytes", "2147483647"),
        ("[server]\nmax_concurrent_calls = 0", "server.max_concurrent_calls", "1"),
        ("[server]\nsurprise = 1", "server.surprise", "Extra inputs"),
        ("surprise = 1", "surprise", "Extra inputs"),
        ("server = 3", "server", "dictionary"),
        ("[compute]\nthreads = 0", "compute.threads", "greater than or equal to 1"),
        ("[compute]\nthreads = 1.5", "compute.threads", "integer"),
        ("[limits]\nmax_texts = 0", "limits.max_texts", "greater than or equal to 1"),
        ("[models.m]\ncontext_length = 8", "models.m.context_length", "32"),
        ("[models.m]\nsequences = 65", "models.m.sequences", "64"),
        ("[models]\nm = 'x'", "models.m", "dictionary"),
        ("[tasks.t]\nbundle = 'b'\naccept_at = 1.5", "tasks.t.accept_at", "1"),
        ("[tasks.t]\nbundle = 'b'\naccept_at = nan", "tasks.t.accept_at", "finite"),
        (
            "[tasks.t]\nbundle = 'b'\n[tasks.t.tiers.head]",
            "tasks.t.tiers.head",
            "expected accept_at or endpoint",
        ),
        (
            "[endpoints.big]\nmodel = 'm'",
            "endpoints.big.url",
            "required",
        ),
        (
            "[endpoints.'../big']\nurl = 'https://h/v1'\nmodel = 'm'",
            "endpoints.../big.[key]",
            "match pattern",
        ),
        (
            "[endpoints.big]\nurl = 'https://h/v1'\nmodel = 'm'\nkey = 'k'",
            "endpoints.big.key",
            "Extra inputs",
        ),
        (
            "endpoints.b = {url = 'h', model = 'm', key_file = 'f', key_variable = 'K'}",
            "endpoints.b",
            "key_file and key_variable say the same",
        ),
        (
            "[endpoints.big]\nurl = 'https://h/v1'\nmodel = 'm'\ndaily_spend = 1.0",
            "endpoints.big",
            "needs input_price or output_price",
        ),
        (
            "[endpoints.big]\nurl = 'https://h/v1'\nmodel = 'm'\nconcurrency = 0",
            "endpoints.big.concurrency",
            "greater than or equal to 1",
        ),
        (
            "[tasks.t]\nbundle = 'b'\ntiers = {head = {accept_at = 2}}",
            "tasks.t.tiers.head.accept_at",
            "less than or equal to 1",
        ),
        (
            "[tasks.t]\nbundle = 'b'\ntiers = {head = {at = 1}}",
            "tasks.t.tiers.head.at",
            "Extra inputs",
        ),
        ("[tasks.t]\nbundle = 'b'\ntiers = {head = 0.9}", "tasks.t.tiers.head", "dictionary"),
        ("[tasks.t]\nbundle = 'b'\non_failure = 'go on'", "tasks.t.on_failure", "'answer'"),
        ("[tasks.t]", "tasks.t.bundle", "Field required"),
        (
            "[tasks.t]\nbundle = 'b'\nthresholds.spam.flag_at = 0",
            "tasks.t.thresholds.spam.flag_at",
            "greater than 0",
        ),
        (
            "[tasks.t]\nbundle = 'b'\nthresholds.spam.block_at = 1.5",
            "tasks.t.thresholds.spam.block_at",
            "less than or equal to 1",
        ),
        (
            "[tasks.t]\nbundle = 'b'\nthresholds.spam.block_at = 'always'",
            "tasks.t.thresholds.spam.block_at",
            "valid number",
        ),
        (
            "[tasks.t]\nbundle = 'b'\nthresholds.spam = 0.5",
            "tasks.t.thresholds.spam",
            "dictionary",
        ),
        (
            "[tasks.t]\nbundle = 'b'\nthresholds.spam.accept_at = 0.5",
            "tasks.t.thresholds.spam.accept_at",
            "Extra inputs",
        ),
    ],
)
def test_config_error_names_the_path(tmp_path: Path, text: str, where: str, what: str) -> None:
    error = refused(toml(tmp_path, text))
    assert error.path == where
    assert error.message.startswith(f"{where}: ")
    assert what in error.message


CLASSIFY = "[tasks.t]\nkind = 'classify'\nmodel = 'm'\n"
DECIDE = "[tasks.t]\nkind = 'decide'\nmodel = 'm'\n"
EXTRACT = "[tasks.t]\nkind = 'extract'\nmodel = 'm'\n"
TRANSFORM = "[tasks.t]\nkind = 'transform'\nmodel = 'm'\nprompt = '{text}'\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[tasks.t]\nkind = 'clasify'", "kind", "expected classify, route, decide, extract"),
        ("[tasks.t]\nkind = ['classify']", "kind", "expected classify"),
        ("[tasks.t]\nkind = 'classify'\nlabels = ['a', 'b']", "model", "Field required"),
        (CLASSIFY, "labels", "Field required"),
        (CLASSIFY + "bundle = 'b'\nlabels = ['a', 'b']", "bundle", "Extra inputs"),
        (CLASSIFY + "labels = ['a', 'b']\nthresholds.a = {}", "thresholds", "Extra inputs"),
        (CLASSIFY + "labels = 'a'", "labels", "tuple"),
        (CLASSIFY + "labels = ['a', 3]", "labels[1]", "dictionary"),
        (CLASSIFY + "labels = ['a', {description = 'x'}]", "labels[1].name", "Field required"),
        (CLASSIFY + "labels = ['a', {name = 3}]", "labels[1].name", "valid string"),
        (CLASSIFY + "labels = ['a', {name = 'b', x = 1}]", "labels[1].x", "Unexpected"),
        (CLASSIFY + "labels = ['a', 'b']\nscoring = 'best'", "scoring", "'constrained' or 'full'"),
        (DECIDE + "questions = [{name = 'n', kind = 'yes_no'}]", "questions[0].text", "required"),
        (DECIDE + "questions = [{name = 'n', text = 't', kind = 'x'}]", "questions[0].kind", "yes"),
        (EXTRACT + "schema = 'none.json'", "schema", "none.json cannot be read: No such file"),
        (EXTRACT + "schema = 3", "schema", "a table, or the path"),
        (EXTRACT + "schema = {const = 2020-01-01}", "schema", "JSON does not have"),
        (EXTRACT + "schema = {const = nan}", "schema", "JSON does not have"),
        (TRANSFORM + "grammar = 'a'", "grammar", "json_schema, regex, lark"),
        (TRANSFORM + "grammar = {regex = 'a', lark = 'b'}", "grammar", "json_schema, regex, lark"),
        (TRANSFORM + "grammar = {regex = 3}", "grammar", "regex: expected text"),
        (TRANSFORM + "sampling = {max_tokns = 3}", "sampling.max_tokns", "Unexpected"),
    ],
)
def test_config_error_of_a_named_task_names_the_path(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    error = refused(toml(tmp_path, text))
    assert error.path == f"tasks.t.{where}"
    assert what in error.message


def test_config_named_tasks_become_the_specs_of_requests(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    options = "['x', {name = 'y', description = 'why'}]"
    made = config.load(
        toml(
            tmp_path,
            f"""
[tasks.c]
kind = "classify"
model = "m"
adapter = "a"
labels = {options}
scoring = "full"
normalize_length = true
[tasks.r]
kind = "route"
model = "m"
instructions = "i"
destinations = ["x", {{name = "y", target = "z"}}]
[tasks.d]
kind = "decide"
model = "m"
correct_prior = true
questions = [{{name = "n", text = "t", kind = "choice", options = {options}}}]
[tasks.e]
kind = "extract"
model = "m"
schema = "schema.json"
require_grounding = true
[tasks.f]
kind = "extract"
model = "m"
schema = {{type = "object"}}
[tasks.t]
kind = "transform"
model = "m"
prompt = "p {{text}}"
grammar = {{json_schema = "schema.json"}}
sampling = {{max_tokens = 3, stop = ["."]}}
lookup = false
""",
        ),
        environment={},
    )
    labels = (Label("x"), Label("y", "why"))
    schema = '{"type": "object"}'
    assert {name: task.spec() for name, task in made.tasks.items()} == {  # type: ignore[union-attr]
        "c": LabelSet("m", labels, scoring="full", normalize_length=True, adapter="a"),
        "r": RouteSet("m", (Destination("x"), Destination("y", target="z")), "i"),
        "d": QuestionSet("m", (Question("n", "t", "choice", labels),), correct_prior=True),
        "e": ExtractSpec("m", schema, require_grounding=True),
        "f": ExtractSpec("m", schema),
        "t": TransformSpec(
            "m", "p {text}", Grammar("json_schema", schema), Sampling(3, stop=(".",)), lookup=False
        ),
    }


def test_config_reference_says_which_kinds_of_task_a_setting_is_for() -> None:
    rows = {path: meaning for path, _, meaning in config.reference()}
    assert len(rows) == len(config.reference())
    assert rows["tasks.NAME.labels"].startswith("classify: ")
    assert rows["tasks.NAME.scoring"].startswith("classify, route: ")
    assert rows["tasks.NAME.model"].startswith("name of a generative model")
    assert "tasks.NAME.schema" in rows
    assert "above 0; at most 1" in rows["tasks.NAME.thresholds.CATEGORY.flag_at"]


def test_config_error_shows_the_value(tmp_path: Path) -> None:
    error = refused(toml(tmp_path, "[compute]\nthreads = -2\n"))
    assert error.message.endswith("(got -2)")


def test_config_log_is_off_and_has_bounds() -> None:
    log = Config().log
    assert (log.path, log.store_text, log.shadow_share) == ("", False, 0.0)
    assert (log.max_rows, log.max_days, log.max_mb) == (1_000_000, 30.0, 1024)
    given = {"SPRAT_LOG__PATH": "/x/log.db", "SPRAT_LOG__SHADOW_SHARE": "0.01"}
    loaded = config.load(environment=given).log
    assert (loaded.path, loaded.shadow_share) == ("/x/log.db", 0.01)
    for name, value in (
        *(("max_rows", 0), ("max_days", 0), ("max_mb", 0), ("max_days", float("inf"))),
        *(("shadow_share", -0.1), ("shadow_share", 1.1), ("store_text", "perhaps")),
    ):
        assert refused(flags={"log.path": "x", f"log.{name}": value}).path == f"log.{name}"
    error = refused(flags={"log.shadow_share": 0.5})
    assert error.message.startswith("log: shadow_share needs a path")


def test_config_error_in_environment_and_flags_names_the_path() -> None:
    assert refused(environment={"SPRAT_COMPUTE__THREADS": "many"}).path == "compute.threads"
    assert refused(environment={"SPRAT_COMPUTE__THREADS": ""}).path == "compute.threads"
    assert refused(environment={"SPRAT_SURPRISE__X": "1"}).path == "surprise"
    assert refused(flags={"server.grace_s": "soon"}).path == "server.grace_s"
    assert refused(flags={"server.surprise": 1}).path == "server.surprise"


def test_config_error_for_a_value_in_the_place_of_a_table(tmp_path: Path) -> None:
    path = toml(tmp_path, "server = 3\n[tasks]\ntickets = 'b'\n")
    error = refused(path, flags={"server.listen": "unix:x"})
    assert (error.path, error.message) == ("server", "server: expected a table, found int")
    error = refused(path, environment={"SPRAT_TASKS__TICKETS__BUNDLE": "b"})
    assert error.message == "tasks.tickets: expected a table, found str"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"tls_certificate": "c"}, "tls_certificate and tls_key are needed together"),
        ({"tls_key": "k"}, "tls_certificate and tls_key are needed together"),
        ({"tls_client_ca": "a"}, "tls_client_ca needs tls_certificate and tls_key"),
    ],
)
def test_config_tls_files_come_in_pairs(given: dict[str, str], missing: str) -> None:
    error = refused(flags={f"server.{name}": value for name, value in given.items()})
    assert error.message == f"server: {missing}"


def test_config_adapters_are_a_list_or_separated_by_commas(tmp_path: Path) -> None:
    path = toml(tmp_path, '[models.m]\nadapters = ["a", "b"]\n')
    assert config.load(path, environment={}).models["m"].adapters == ("a", "b")
    made = config.load(path, environment={"SPRAT_MODELS__M__ADAPTERS": "c, d"})
    assert made.models["m"].adapters == ("c", "d")
    assert (
        config.load(path, environment={"SPRAT_MODELS__M__ADAPTERS": ""}).models["m"].adapters == ()
    )


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        ('["a", "a"]', "models.m.adapters", "expected different names"),
        ('["a", 1]', "models.m.adapters[1]", "valid string"),
        ("1", "models.m.adapters", "valid tuple"),
    ],
)
def test_config_adapters_that_cannot_be(tmp_path: Path, value: str, path: str, said: str) -> None:
    error = refused(toml(tmp_path, f"[models.m]\nadapters = {value}\n"))
    assert error.path == path
    assert said in error.message


def test_config_tls_files_may_come_from_different_sources(tmp_path: Path) -> None:
    made = config.load(
        toml(tmp_path, "[server]\ntls_certificate = 'c.pem'\n"),
        environment={"SPRAT_SERVER__TLS_KEY": "k.pem"},
        flags={"server.tls_client_ca": "ca.pem"},
    )
    assert (made.server.tls_certificate, made.server.tls_key) == (Path("c.pem"), Path("k.pem"))


@pytest.mark.parametrize("text", ["[server\n", "a = \n", b"\xff\xfe", b'a = "\xff"\n'])
def test_config_error_for_what_is_no_toml(tmp_path: Path, text: str | bytes) -> None:
    path = toml(tmp_path, text)
    error = refused(path)
    assert error.path == str(path)
    assert "not TOML" in error.message


def test_config_error_for_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.toml").message
    assert "Is a directory" in refused(tmp_path).message


def test_config_never_changes_after_loading() -> None:
    made = config.load(environment={})
    with pytest.raises(ValueError, match="frozen"):
        made.server.grace_s = 3.0


def test_config_every_field_is_described() -> None:
    def sections(kind: type[BaseModel]) -> None:
        for name, field in kind.model_fields.items():
            if kind is not Config and name != "kind":
                assert field.description, f"{kind.__name__}.{name}"

    for kind in (
        config.ServerConfig,
        config.ComputeConfig,
        config.LimitsConfig,
        config.ModelConfig,
        TaskConfig,
        ThresholdsConfig,
        TierConfig,
        *MODEL_TASKS,
        Config,
    ):
        assert kind.__doc__
        sections(kind)


def test_config_thresholds_stand_over_those_of_the_bundle(tmp_path: Path) -> None:
    text = """
[tasks.m]
bundle = "m"
[tasks.m.thresholds]
insult = {flag_at = 0.7, block_at = 0.95}
threat = {flag_at = 0.2}
"hate speech" = {block_at = "never"}
spam = {}
"""
    environment = {"SPRAT_TASKS__M__THRESHOLDS__SPAM__BLOCK_AT": "0.8"}
    task = config.load(toml(tmp_path, text), environment=environment).tasks["m"]
    assert isinstance(task, TaskConfig)
    made = {name: each.over(0.5, 0.9) for name, each in task.thresholds.items()}
    assert made == {
        "insult": (0.7, 0.95),
        "threat": (0.2, 0.9),
        "hate speech": (0.5, None),
        "spam": (0.5, 0.8),
    }
    assert ThresholdsConfig().over(0.5, None) == (0.5, None)
    assert ThresholdsConfig(block_at=0.6).over(0.5, None) == (0.5, 0.6)
