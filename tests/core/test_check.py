"""Every rule of the check: a line, and the problem it makes."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluicegate.adapters.counters import TiktokenCounter, default_counter
from sluicegate.adapters.workers import InlineWorkers
from sluicegate.core import check
from sluicegate.core.estimate import Tally, tally
from sluicegate.core.index import Flag, Index
from sluicegate.core.limits import Model
from sluicegate.core.rules import CheckRules
from sluicegate.core.types import Dialect
from sluicegate.errors import UsageError
from sluicegate.service.intake import CopiedInput, InputSource, Inspection, copy_in_sync, inspect

OPENAI = CheckRules(dialect=Dialect.OPENAI)
AZURE = CheckRules(dialect=Dialect.AZURE)


def request(**changes: Any) -> dict[str, Any]:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]} | changes.pop("body", {})
    return {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body} | changes


def line(**changes: Any) -> bytes:
    return json.dumps(request(**changes)).encode()


def twice(more: bytes) -> bytes:
    """A line with ``more`` in its body."""
    return line().replace(b'"model"', more + b', "model"')


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in request().items() if key != name}).encode()


async def look(folder: Path, *contents: bytes, rules: CheckRules = OPENAI) -> Inspection:
    sources = []
    for i, content in enumerate(contents):
        path = folder / f"{i}.jsonl"
        path.write_bytes(content)
        sources.append(InputSource(name=f"{i}.jsonl", path=path))
    return await inspect(sources, rules=rules, workers=InlineWorkers(), counter=default_counter)


FAULTS: list[tuple[str, bytes, str, str]] = [
    ("not json", b"{nope", "invalid_json_line", "error"),
    ("nan", line().replace(b'"hello"', b"NaN"), "invalid_json_line", "error"),
    ("bad utf-8 in a field nobody reads", line(x="@").replace(b"@", b"\xff"), "invalid_json_line", "error"),
    ("half a surrogate pair", line().replace(b"hello", b"\\ud800"), "invalid_json_line", "error"),
    ("a key twice", line().replace(b'"model"', b'"model": "x", "model"'), "invalid_json_line", "error"),
    ("deep nesting", b'{"custom_id":' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json_line", "error"),
    ("no custom_id", without("custom_id"), "missing_required_parameter", "error"),
    ("no method", without("method"), "missing_required_parameter", "error"),
    ("no url", without("url"), "missing_required_parameter", "error"),
    ("no body", without("body"), "missing_required_parameter", "error"),
    ("custom_id a number", line(custom_id=7), "invalid_type", "error"),
    ("body a list", json.dumps(request() | {"body": []}).encode(), "invalid_type", "error"),
    ("no model", line(body={"model": None}), "invalid_request", "error"),
    ("model a number", line(body={"model": 5}), "invalid_type", "error"),
    ("model of two lines", line(body={"model": "gpt-4.1\n12:00:00 info"}), "invalid_request", "error"),
    ("model that moves the cursor", line(body={"model": "gpt\x9b2J"}), "invalid_request", "error"),
    ("GET", line(method="GET"), "invalid_request", "error"),
    ("stream twice", twice(b'"stream": true, "stream": false'), "invalid_json_line", "error"),
    ("max_tokens twice", twice(b'"max_tokens": 9, "max_tokens": 5'), "invalid_json_line", "error"),
    ("model twice, once with an escape", twice(rb'"\u006dodel": "gpt-4o"'), "invalid_json_line", "error"),
    ("body twice, once with an escape", line()[:-1] + rb', "bod\u0079": {}}', "invalid_json_line", "error"),
    ("post in lower case", line(method="post"), "invalid_request", "error"),
    ("stream", line(body={"stream": True}), "streaming_unsupported", "error"),
    ("unserved url", line(url="/v1/audio/speech"), "invalid_url", "error"),
    ("no messages", line(body={"messages": []}), "invalid_request", "error"),
    ("max_tokens too high", line(body={"max_tokens": 99_999}), "invalid_request", "error"),
    ("max_tokens of zero", line(body={"max_tokens": 0}), "invalid_request", "error"),
    ("a blank line", line() + b"\n\n" + line(custom_id="b"), "blank_line", "warning"),
    ("a byte order mark", b"\xef\xbb\xbf" + line(), "byte_order_mark", "warning"),
    ("an empty file", b"", "empty_file", "error"),
    ("an id twice", line() + b"\n" + line(), "duplicate_custom_id", "error"),
    ("two models", line() + b"\n" + line(custom_id="b", body={"model": "gpt-4o"}), "model_mismatch", "warning"),
    ("two urls", line() + b"\n" + line(custom_id="b", url="/v1/responses", body={"input": "x"}), "url_mismatch", "warning"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "code", "severity"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
async def test_each_fault_is_found_with_its_code(tmp_path: Path, content: bytes, code: str, severity: str) -> None:
    """The provider's own code where it has one, a sentence and a remedy always."""
    found = await look(tmp_path, content + b"\n" if content else content)

    assert [(p.code, p.severity) for p in found.problems.listed] == [(code, severity)]
    problem = found.problems.listed[0]
    assert problem.message and problem.remedy and problem.file == "0.jsonl"


async def test_a_good_line_has_no_problem_and_the_cookbooks_count(tmp_path: Path) -> None:
    """3 a message, 3 a request, role and content: 8 tokens; the span of the model can be spliced."""
    content = line() + b"\r\n"
    found = await look(tmp_path, content)
    index = found.indexes[0]

    assert found.problems.total == 0
    assert list(index.tokens) == [8]
    start, length = index.model_at[0], index.model_length[0]
    assert content[start : start + length] == b'"gpt-4.1"'
    assert Index.read(io.BytesIO(b"".join(index.chunks()))) == index


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (line()[:-1] + b', "x": "\xff"}', "not valid UTF-8 at byte 157."),
        (line(body={"user": "#"}).replace(b"#", b"\xff"), "not valid UTF-8 at byte 159."),
        (line(body={"user": "#"}).replace(b"#", rb"\ud800"), "has half of a surrogate pair"),
        (line()[:-1] + rb', "x": "\ud800"}', "has half of a surrogate pair"),
        (line(body={"user": "\U0001f600"})[:-9], "not parseable as valid JSON: Input data was truncated."),
    ],
)
async def test_what_is_wrong_with_a_text_is_said_of_the_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    """Bytes are counted in the line and not in a field; a pair that is cut by the line's end is not half of one."""
    found = await look(tmp_path, content + b"\n")

    assert sentence in found.problems.listed[0].message


def test_numbers_and_depths_beyond_pythons_in_fields_that_nobody_reads_end_nothing() -> None:
    """They are the provider's to judge."""
    deep = b"[" * 980 + b"]" * 980
    for content in (
        line()[:-1] + b', "x": ' + b"9" * 5_000 + b"}",
        line()[:-1] + b', "x": ' + deep + rb', "m\u0061x": "\ud83d\ude00"}',
    ):
        content = content.replace(b'"a"', rb'"\ud83d\ude00"').replace(b'"role"', b'"url": 1, "role"')
        found = check.Scanner(OPENAI, default_counter().count, "x").run(io.BytesIO(content), 0, len(content))

        assert len(found.index) == 1


async def test_duplicates_name_both_lines(tmp_path: Path) -> None:
    """The person sees where the other one is."""
    found = await look(tmp_path, b"\n".join([line(), line(custom_id="b"), line()]) + b"\n")

    assert found.problems.listed[0].line == 3
    assert "line 1" in found.problems.listed[0].message


async def test_a_request_above_the_limit_or_the_context_window_is_refused(tmp_path: Path) -> None:
    """It could never run; better said now than by the provider in an hour."""
    content = line(body={"messages": [{"role": "user", "content": "word " * 2_000}], "model": "gpt-3.5-turbo"}) + b"\n"
    above = await look(tmp_path, content, rules=CheckRules(dialect=Dialect.OPENAI, limit=1_000))
    assert [p.code for p in above.problems.listed] == ["token_limit_exceeded"]

    long = line(body={"messages": [{"role": "user", "content": "word " * 20_000}], "model": "gpt-3.5-turbo"}) + b"\n"
    beyond = await look(tmp_path, long)
    assert [p.code for p in beyond.problems.listed] == ["context_length_exceeded"]


async def test_a_line_over_the_maximum_is_skipped_without_reading_it_whole(tmp_path: Path) -> None:
    """100 MB in one line cost an error and no memory."""
    rules = CheckRules(dialect=Dialect.OPENAI, line_bytes_max=2_048)
    found = await look(tmp_path, b'{"x":"' + b"y" * 100_000 + b'"}\n' + line() + b"\n", rules=rules)

    assert [p.code for p in found.problems.listed] == ["line_too_long"]
    assert found.requests == 2


async def test_azure_serves_fewer_urls_and_no_fine_tuned_models(tmp_path: Path) -> None:
    """What OpenAI takes, Azure may not (F§1.6, F§1.7)."""
    embeddings = line(url="/v1/embeddings", body={"input": "x"})
    assert (await look(tmp_path, embeddings)).problems.total == 0
    assert (await look(tmp_path, embeddings, rules=AZURE)).problems.listed[0].code == "invalid_request"
    assert (await look(tmp_path, line(url="/chat/completions"), rules=AZURE)).problems.total == 0
    tuned = await look(tmp_path, line(body={"model": "ft:gpt-4.1:me"}), rules=AZURE)
    assert tuned.problems.listed[0].code == "model_not_found"


async def test_fine_tuned_is_asked_of_the_deployment_that_a_line_goes_to(tmp_path: Path) -> None:
    """--deployment and the gateway's names change it; what the line says then counts no more."""
    tuned, base = line(body={"model": "ft:gpt-4.1:mine"}), line(body={"model": "any"})
    models = {"tuned": "ft:gpt-4.1:mine", "plain": "gpt-4.1"}
    for content, rules, codes in (
        (tuned, {"redirect": "plain"}, []),
        (base, {"redirect": "tuned"}, ["model_not_found"]),
        (base, {"names": {"any": "tuned"}}, ["model_not_found"]),
    ):
        given = CheckRules(dialect=Dialect.AZURE, models=models, **rules)  # type: ignore[arg-type]
        found = await look(tmp_path, content + b"\n", rules=given)

        assert [p.code for p in found.problems.listed] == codes


async def test_the_same_id_in_two_inputs_is_no_error_but_marked(tmp_path: Path) -> None:
    """Each input is a file of its own; on the wire the second one goes under another id."""
    found = await look(tmp_path, line(), line())

    assert found.problems.total == 0
    assert [index.flags[0] & Flag.DUPLICATE_ID for index in found.indexes] == [0, Flag.DUPLICATE_ID]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=6), end=st.sampled_from([b"\n", b"\r\n"]))
async def test_any_text_is_counted_as_tiktoken_counts_it(tmp_path: Path, texts: list[str], end: bytes) -> None:
    """Ordinary text whatever it is: special tokens, control characters, line separators."""
    lines = [line(custom_id=str(i), body={"messages": [{"role": "user", "content": t}]}) for i, t in enumerate(texts)]
    found = await look(tmp_path, end.join(lines))

    counts = TiktokenCounter().count(texts, "o200k_base")
    assert list(found.indexes[0].tokens) == [7 + count for count in counts]


def test_copies_are_plain_and_known_by_their_content(tmp_path: Path) -> None:
    """Gzipped or not, the copy and its digest are the same; a folder or a missing file says what to do."""
    (tmp_path / "a").write_bytes(b"hello\n")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"hello\n"))
    copies = [copy_in_sync(str(tmp_path / name), tmp_path / f"copy-{i}") for i, name in enumerate(("a", "b.gz"))]

    assert copies[0] == copies[1]
    assert copies[0] == CopiedInput(sha256=copies[0].sha256, bytes=6)
    assert (tmp_path / "copy-1").read_bytes() == b"hello\n"
    for name in (".", "missing.jsonl"):
        with pytest.raises(UsageError):
            copy_in_sync(str(tmp_path / name), tmp_path / "x")


def test_a_line_that_no_counting_rule_expected_is_an_estimate_and_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever stands in one line, of another client's batch too, ends neither the check nor a command."""

    def breaks(url: str, body: dict[str, Any], model: Model) -> Tally:
        if "odd" in body:
            raise TypeError("as a rule that is missing a case would")
        return tally(url, body, model)

    monkeypatch.setattr(check, "tally", breaks)
    messages = [{"role": "user", "content": "hi"}]
    lines = [line(body={"model": "gpt-4.1", "messages": messages, "odd": "x" * 400}), line(custom_id="b")]
    for rules in (CheckRules(dialect=Dialect.OPENAI), CheckRules(dialect=Dialect.OPENAI, lenient=True)):
        content = b"\n".join(lines)
        found = check.Scanner(rules, default_counter().count, "x").run(io.BytesIO(content), 0, len(content))

        assert found.index.tokens[0] == -(-found.index.chars[0] // 4) > 100
        assert found.index.flags[0] & Flag.ESTIMATED
        assert 0 < found.index.tokens[1] < 20
        assert not found.problems
