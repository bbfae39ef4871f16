"""Settings: which source wins, what is refused, what is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from sluicegate.errors import UsageError
from sluicegate.settings import MASK, SDK_NAMES, Settings, format_duration, settings_markdown


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file of the machine takes part."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(text: str, name: str = "sluicegate.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults() -> None:
    """Each source wins over the ones after it, and origins() says which one did."""
    write('limit = "10K"\npoll = "10s"\nmargin = 1.5\nattempts = 7\n')
    environ = {"SLUICEGATE_LIMIT": "20K", "SLUICEGATE_POLL": "20s"}

    settings = Settings.load({"limit": "30K", "poll": None}, environ=environ)

    assert (settings.limit, settings.poll, settings.margin, settings.poll_max) == (30_000, 20.0, 1.5, 600.0)
    origins = settings.origins()
    assert [origins[name] for name in ("limit", "poll", "margin", "poll_max")] == [
        "argument",
        "environment SLUICEGATE_POLL",
        "file sluicegate.toml",
        "default",
    ]


def test_our_own_variable_beats_the_sdks() -> None:
    """SLUICEGATE_BASE_URL wins over OPENAI_BASE_URL; an empty variable is an unset one."""
    environ = {"SLUICEGATE_BASE_URL": "https://a.example/v1", "OPENAI_BASE_URL": "https://b.example/v1"}

    assert Settings.load(environ=environ).base_url == "https://a.example/v1"
    assert Settings.load(environ=environ | {"SLUICEGATE_BASE_URL": ""}).base_url == "https://b.example/v1"


@pytest.mark.parametrize(("name", "variable"), SDK_NAMES.items())
def test_the_sdks_variables_are_read(name: str, variable: str) -> None:
    """Whoever has set up the official SDK has set up Sluicegate."""
    value = "https://a.example" if name in ("base_url", "azure_endpoint") else "value"

    settings = Settings.load(environ={variable: value})

    assert settings.origins()[name] == f"environment {variable}"


def test_the_named_file_is_read_in_place_of_the_others() -> None:
    """--config, else SLUICEGATE_CONFIG, else ./sluicegate.toml, else the user's."""
    write("attempts = 1", "config/sluicegate/sluicegate.toml")
    assert Settings.load(environ={}).attempts == 1

    write("attempts = 2")
    assert Settings.load(environ={}).attempts == 2

    named = write("attempts = 4", "named.toml")
    assert Settings.load(environ={"SLUICEGATE_CONFIG": str(named)}).attempts == 4
    assert (
        Settings.load(config=write("attempts = 5", "flag.toml"), environ={"SLUICEGATE_CONFIG": "named.toml"}).attempts
        == 5
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limt = 3", "sluicegate.toml has the key 'limt', which is no setting; did you mean limit?"),
        ("[model]\nx = 'y'", "did you mean models?"),
        ("frobnicate = 1", "`sluicegate config` lists all settings"),
        ("limit = ", "is not valid TOML"),
    ],
)
def test_what_the_file_may_not_have_is_named(text: str, said: str) -> None:
    """An unknown key names itself, its file and the nearest known key."""
    write(text)

    with pytest.raises(UsageError) as caught:
        Settings.load(environ={})

    assert said in str(caught.value)


def test_an_unknown_variable_with_our_prefix_is_an_error() -> None:
    """A misspelt variable is not ignored; Kubernetes' service links and the command line's own variables are."""
    with pytest.raises(UsageError, match="SLUICEGATE_LIMMIT, which is no setting; did you mean SLUICEGATE_LIMIT"):
        Settings.load(environ={"SLUICEGATE_LIMMIT": "3"})

    Settings.load(environ={"SLUICEGATE_PORT_80_TCP_ADDR": "10.0.0.1", "SLUICEGATE_DEBUG": "1"})


def test_an_unknown_argument_is_an_error() -> None:
    """sluicegate.run(limt=…) says what was meant."""
    with pytest.raises(UsageError, match="no setting 'limt'; did you mean limit"):
        Settings.load({"limt": 3}, environ={})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"limit": "30X"}, "30X"),
        ({"limit": 0}, "limit 0 is wrong: it should be greater than or equal to 1"),
        ({"limit": True}, "true is not a number"),
        ({"poll": "soon"}, "soon"),
        ({"margin": 0.5}, "margin 0.5 is wrong"),
        ({"attempts": "many"}, "'many' is not a whole number"),
        ({"base_url": "example.com"}, "it starts with https://"),
        ({"base_url": "https://me:pw@example.com"}, "must not carry a user name or password"),
        ({"dialect": "aws"}, "dialect 'aws' is wrong"),
        ({"models": "{"}, "not a JSON object"),
        ({"prices": {"m": {"input": -1}}}, "prices.m.input is wrong"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(flags: dict[str, object], said: str) -> None:
    """One sentence that names the setting, the value and what it should be."""
    with pytest.raises(UsageError) as caught:
        Settings.load(flags, environ={})

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_in_an_address_is_not_repeated() -> None:
    """Neither the sentence nor the exception chain shows it."""
    with pytest.raises(UsageError) as caught:
        Settings.load({"base_url": "ftp://me:hunter2@example.com"}, environ={})

    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    """repr, str, shown() and errors never have a key in them."""
    settings = Settings.load(environ={"OPENAI_API_KEY": "sk-very-secret", "AZURE_OPENAI_API_KEY": "sk-very-secret"})

    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "sk-very-secret"
    assert settings.shown()["api_key"] == MASK
    assert "very-secret" not in f"{settings!r} {settings} {settings.shown()} {settings.model_dump_json()}"


def test_durations_tokens_and_counts_are_read_as_people_write_them() -> None:
    """'2m' is 120 seconds, '1.5M' is 1,500,000 tokens; plain numbers are seconds and tokens."""
    settings = Settings.load(
        {
            "poll": "500ms",
            "poll_max": 90,
            "limit": "90,000",
            "expected_output_tokens": "1.5M",
            "requests_max": "50,000",
        },
        environ={},
    )

    assert (settings.poll, settings.poll_max, settings.limit) == (0.5, 90.0, 90_000)
    assert (settings.expected_output_tokens, settings.requests_max) == (1_500_000, 50_000)


def test_tables_are_read_from_the_file_and_from_json_in_the_environment() -> None:
    """[models] and [prices."name"] in TOML; a JSON object in a variable."""
    write('[models]\nmine = "gpt-4.1"\n[prices."gpt-4.1"]\ninput = 1.0\ncached_input = 0.25\noutput = 4\n')
    from_file = Settings.load(environ={})

    assert from_file.models == {"mine": "gpt-4.1"}
    assert (from_file.prices["gpt-4.1"].cached_input, from_file.prices["gpt-4.1"].output) == (0.25, 4.0)
    assert Settings.load(environ={"SLUICEGATE_MODELS": json.dumps({"a": "b"})}).models == {"a": "b"}


def test_an_address_given_replaces_the_other_kind_below_it() -> None:
    """--base-url is not spoilt by an Azure endpoint in the environment, nor the other way round."""
    azure = {"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com"}
    openai = {"OPENAI_BASE_URL": "https://b.example/v1"}

    assert Settings.load({"base_url": "http://127.0.0.1:8080/v1"}, environ=azure).azure_endpoint is None
    assert Settings.load({"azure_endpoint": "https://c.example"}, environ=openai).base_url is None
    both = Settings.load(environ=azure | openai)
    assert both.azure_endpoint is not None
    assert both.base_url is not None


@pytest.mark.parametrize(
    ("environ", "entra"),
    [
        ({}, False),
        ({"OPENAI_API_KEY": "k"}, False),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com"}, True),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com", "OPENAI_API_KEY": "k"}, True),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com", "AZURE_OPENAI_API_KEY": "k"}, False),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com", "AZURE_OPENAI_AD_TOKEN": "t"}, False),
        ({"OPENAI_BASE_URL": "https://a.openai.azure.com/openai/v1/"}, True),
        ({"OPENAI_BASE_URL": "https://a.openai.azure.com/openai/v1/", "OPENAI_API_KEY": "k"}, False),
        ({"AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com", "SLUICEGATE_USE_ENTRA": "false"}, False),
        (
            {
                "AZURE_OPENAI_ENDPOINT": "https://a.openai.azure.com",
                "AZURE_OPENAI_API_KEY": "k",
                "SLUICEGATE_USE_ENTRA": "true",
            },
            True,
        ),
    ],
)
def test_entra_is_what_is_left_on_azure_without_a_key(environ: dict[str, str], entra: bool) -> None:
    """Nobody with a login has to set anything; whoever set it is obeyed."""
    settings = Settings.load(environ=environ)

    assert settings.use_entra is entra


def test_settings_are_frozen() -> None:
    """What is in force does not change under way."""
    settings = Settings.load(environ={})

    with pytest.raises(ValidationError):
        settings.margin = 2.0  # type: ignore[misc]


def test_making_settings_by_hand_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings(...) is what it was given; Settings.load reads the sources."""
    monkeypatch.setenv("SLUICEGATE_LIMIT", "30K")

    assert Settings().limit is None
    assert Settings(limit="5K").limit == 5_000
    assert Settings(limit="5K").origins()["limit"] == "argument"


def test_the_settings_page_has_a_line_for_every_setting() -> None:
    """docs/settings.md cannot forget one."""
    page = settings_markdown()

    for name, field in Settings.model_fields.items():
        assert f"| `{name}` | `SLUICEGATE_{name.upper()}`" in page
        assert field.description
        assert field.description.replace("|", "\\|") in page
    assert str(Path.home()) not in page


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (0.5, "0.5s"), (60, "60s"), (90, "90s"), (600, "10m"), (129_600, "36h")]
)
def test_a_duration_is_shown_as_it_may_be_written(seconds: float, said: str) -> None:
    """What `config` prints can be put back into the file."""
    assert format_duration(seconds) == said
    assert Settings.load({"release_lag": said}, environ={}).release_lag == seconds
