"""Every limit: F§3, row by row, by the number that the provider says in its refusal or its header."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.conftest import Ordered
from tests.contract.target import Surface

Order = Callable[..., Ordered]
AZURES = ["azure", "azure-v1"]
SURFACES = ["openai", *AZURES]
every_surface = pytest.mark.parametrize("name", SURFACES)
every_azure = pytest.mark.parametrize("name", AZURES)


def refused_by(made: Ordered, model: str, limit: int) -> str:
    """What the refusal says where somebody else holds all of the limit."""
    made.provider.others_hold(limit, deployment=model, listed=False)
    batch = made.surface.run(made.surface.line(model=model))
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "token_limit_exceeded"
    message: str = batch["errors"]["data"][0]["message"]
    return message


# -- F§3.1: structural --------------------------------------------------------------------------------------------------
# Lines per file, models per file, embeddings and the size by a model: test_batch_errors.py. File size, 500 input files:
# test_http_errors.py.


def validated(surface: Surface, lines: int) -> dict[str, Any]:
    """A batch of so many lines once it is through ``validating``; it is cancelled as soon as that is known."""
    content = b"".join(surface.line(str(i), "a", max_tokens=1) for i in range(lines))
    batch_id = surface.create(surface.upload(content))["id"]
    try:
        return surface.wait(batch_id, "in_progress", "finalizing", "completed", "failed")
    finally:
        surface.call("POST", f"/batches/{batch_id}/cancel")


@pytest.mark.costly
def test_f3_1_lines_per_file_100000_are_taken_on_azure(azure_surface: Surface) -> None:
    """F§3.1 lines per file: 100,000 on Azure; one more is ``too_many_tasks``."""
    batch = validated(azure_surface, 100_000)

    assert batch["status"] != "failed", batch["errors"]


@pytest.mark.costly
def test_f3_1_lines_per_file_50000_are_taken_on_openai(openai_surface: Surface) -> None:
    """F§3.1 lines per file: 50,000 on OpenAI."""
    batch = validated(openai_surface, 50_000)

    assert batch["status"] != "failed", batch["errors"]


@pytest.mark.emulator_only
@every_azure
def test_f3_1_input_files_with_expiry_have_a_limit_of_their_own(ordered: Order, name: str) -> None:
    """F§3.1: 10,000 with expiry, beside the 500 without; the literal text in its own words."""
    surface = ordered(name, files_max=1, files_expiring_max=2).surface
    form = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "1209600"}
    for _ in range(2):
        assert surface.post_file(b"", **form).status_code in (200, 201)
    over = surface.post_file(b"", **form)

    assert over.status_code == 400
    assert "quota for files with expiry is reached. The maximum is 2." in over.text
    assert surface.post_file(b"").status_code in (200, 201)


@pytest.mark.emulator_only
@pytest.mark.parametrize("name", ["azure", "openai"])
def test_f3_1_upload_rate(ordered: Order, name: str) -> None:
    """F§3.1 upload rate: one more than allowed is answered with 429 and both retry headers; a minute later it goes."""
    server = ordered(name, clock="hand", uploads_per_minute=2)
    assert all(server.surface.post_file(b"").is_success for _ in range(2))
    over = server.surface.post_file(b"")

    assert over.status_code == 429
    assert int(over.headers["retry-after"]) == 60
    server.provider.post("/_emulator/clock", advance=60)
    assert server.surface.post_file(b"").is_success


@pytest.mark.parametrize(("what", "fields"), [
    ("2049 messages", {"messages": [{"role": "user", "content": "a"}] * 2_049}),
    ("129 tools", {"tools": [{"type": "function", "function": {"name": "f"}}] * 129}),
    ("51 images", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}] * 51}]}),
])  # fmt: skip
def test_f3_1_of_one_request_on_azure(azure_surface: Surface, what: str, fields: dict[str, Any]) -> None:
    """F§3.1 images per request (50), chat messages and tools (2,048 and 128): one more fails the batch, as many do not."""
    batch = azure_surface.run(azure_surface.line(**fields))

    assert batch["status"] == "failed"
    assert (batch["errors"]["data"][0]["code"], batch["errors"]["data"][0]["line"]) == ("invalid_request", 1)
    assert what in batch["errors"]["data"][0]["message"]


@pytest.mark.emulator_only
@every_azure
def test_f3_1_output_files_do_not_count(ordered: Order, name: str) -> None:
    """F§3.1: input files only, by the current documents."""
    surface = ordered(name, files_max=2).surface
    surface.run(surface.line())

    assert surface.post_file(b"").status_code in (200, 201)
    assert surface.post_file(b"").status_code == 400


@pytest.mark.emulator_only
def test_f3_1_openai_has_no_limit_of_files(ordered: Order) -> None:
    """F§3.1: none but storage."""
    surface = ordered("openai").surface
    for _ in range(5):
        assert surface.post_file(b"").status_code == 200
    from sluicegate.emulator.config import Account

    assert Account(dialect="openai").with_defaults().files_max is None


@pytest.mark.emulator_only
def test_f3_1_batch_creations_2000_an_hour_on_openai(ordered: Order) -> None:
    """F§3.1: the 2,001st in an hour is answered with 429; an hour later it goes."""
    made = ordered("openai", clock="hand")
    for _ in range(2_000):
        assert made.surface.post_batch("file-none").status_code == 200
    over = made.surface.post_batch("file-none")

    assert over.status_code == 429
    assert 0 < float(over.headers["retry-after"]) <= 3_600
    made.provider.advance("61m")
    assert made.surface.post_batch("file-none").status_code == 200


@pytest.mark.emulator_only
@every_surface
def test_f3_1_simultaneous_batches_are_bounded_by_tokens_only(ordered: Order, name: str) -> None:
    """F§3.1: no number is documented."""
    surface = ordered(name, start="1h").surface
    file_id = surface.upload(surface.line())
    made = [surface.create(file_id)["id"] for _ in range(60)]

    assert {surface.wait(one, "in_progress", "failed")["status"] for one in made} == {"in_progress"}


@pytest.mark.emulator_only
@every_surface
def test_f3_1_output_tokens_are_not_limited(ordered: Order, name: str) -> None:
    """F§3.1, F§4.1: input tokens only; ``max_tokens`` counts for nothing."""
    made = ordered(name, limit=1_000)
    batch = made.surface.run(made.surface.line(max_tokens=1_000_000))

    assert batch["status"] == "completed"


METADATA: list[tuple[dict[str, str], bool]] = [
    ({f"k{i}": "v" for i in range(16)}, True), ({f"k{i}": "v" for i in range(17)}, False), ({"k" * 64: "v"}, True),
    ({"k" * 65: "v"}, False), ({"k": "v" * 512}, True), ({"k": "v" * 513}, False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "taken"), METADATA, ids=["16", "17", "key 64", "key 65", "value 512", "value 513"]
)
def test_f3_1_metadata_16_by_64_by_512(surface: Surface, metadata: dict[str, str], taken: bool) -> None:
    """F§3.1, F§1.6: at most 16 pairs, keys of 64, values of 512 characters."""
    answer = surface.post_batch(surface.upload(surface.line()), metadata=metadata)

    assert (answer.status_code in (200, 201)) is taken
    if taken:
        assert answer.json()["metadata"] == metadata
    else:
        assert answer.status_code == 400


EXPIRY: dict[str, tuple[int, int]] = {"openai": (3_600, 2_592_000), "azure": (1_209_600, 2_592_000)}


@pytest.mark.parametrize("spelling", ["expires_after[seconds]", "expires_after.seconds"])
def test_f1_9_expiry_of_files(surface: Surface, spelling: str) -> None:
    """F§1.9: from one hour (Azure: 14 days) to 30 days; both ends are taken, a second more or less is not."""
    least, most = EXPIRY[surface.target.dialect]
    anchor = {spelling.replace("seconds", "anchor"): "created_at"}
    statuses = [
        surface.post_file(b"", **anchor, **{spelling: str(seconds)}).status_code
        for seconds in (least - 1, least, most, most + 1)
    ]

    assert [status < 300 for status in statuses] == [False, True, True, False]
    assert set(statuses) <= {200, 201, 400}


# -- F§3.2, F§3.3, F§3.4: Azure's quotas as the limit that bites -----------------------------------------------------------

# Every number of the two tables of models and offers, and the default sliders of F§3.4, as the refusal abbreviates them.
AZURE_LIMITS = {
    "30K": 30_000, "50K": 50_000, "90K": 90_000, "100K": 100_000, "740K": 740_000, "2M": 2_000_000, "5M": 5_000_000,
    "30M": 30_000_000, "40M": 40_000_000, "50M": 50_000_000, "80M": 80_000_000, "100M": 100_000_000,
    "150M": 150_000_000, "200M": 200_000_000, "300M": 300_000_000, "500M": 500_000_000, "1B": 1_000_000_000,
    "1.5B": 1_500_000_000,
    "5B": 5_000_000_000, "10B": 10_000_000_000, "15B": 15_000_000_000,
}  # fmt: skip


@pytest.mark.emulator_only
@pytest.mark.parametrize(("shown", "limit"), AZURE_LIMITS.items(), ids=list(AZURE_LIMITS))
def test_f3_4_a_deployments_capacity_is_its_limit(ordered: Order, shown: str, limit: int) -> None:
    """F§3.2, F§3.3, F§3.4: one unit of capacity is 1,000 enqueued tokens; header and refusal say the limit."""
    made = ordered("azure", deployments={"gpt-4.1": {"capacity": limit // 1_000}})
    accepted = made.surface.post_batch(made.surface.upload(made.surface.line()))

    assert accepted.headers["deployment-maximum-enqueued-tokens"] == str(limit)
    assert f"configured limit of {shown} for the deployment 'gpt-4.1'" in refused_by(made, "gpt-4.1", limit)


ENTERPRISE_DEFAULT_CARD_MSDN_STUDENT = {
    "F§3.2 gpt-4.1": "5B 200M 50M 90K", "F§3.2 gpt-4.1-mini": "15B 1B 50M 90K", "F§3.2 gpt-4.1-nano": "15B 1B 50M 90K",
    "F§3.2 gpt-4o": "5B 200M 50M 90K", "F§3.2 gpt-4o-mini": "15B 1B 50M 90K", "F§3.2 gpt-4-turbo": "300M 80M 40M 90K",
    "F§3.2 gpt-4": "150M 30M 5M 100K", "F§3.2 gpt-35-turbo": "10B 1B 100M 2M 50K", "F§3.2 o3-mini": "15B 1B 50M 90K",
    "F§3.2 o4-mini": "15B 1B 50M 90K", "F§3.2 gpt-5": "5B 200M 50M 90K", "F§3.2 gpt-5.1": "5B 200M 50M 90K",
    **{f"F§3.2 {model}": "5B 200M 50M" for model in ("gpt-5.2", "gpt-5.4", "gpt-5.4-mini", "gpt-5.4-nano")},
    "F§3.2 gpt-5.5": "5B 200M 50M 90K",
    "F§3.3 gpt-4.1": "500M 30M 30M 90K", "F§3.3 gpt-4.1-mini": "1.5B 100M 50M 90K", "F§3.3 gpt-4o": "500M 30M 30M 90K",
    "F§3.3 gpt-4o-mini": "1.5B 100M 50M 90K", "F§3.3 o3-mini": "1.5B 100M 50M 90K", "F§3.3 gpt-5": "5B 200M 50M 90K",
    "F§3.3 gpt-5.1": "5B 200M 50M 90K", "F§3.3 gpt-5.4": "5B 200M 50M", "F§3.3 gpt-5.4-mini": "5B 200M 50M",
    "F§3.3 gpt-5.5": "5B 200M 50M 90K",
}  # fmt: skip
"""The two tables: global batch (F§3.2) and data zone batch (F§3.3); offers of which a model has no quota are at the end."""


@pytest.mark.emulator_only
@pytest.mark.parametrize("row", ENTERPRISE_DEFAULT_CARD_MSDN_STUDENT, ids=lambda row: row.replace("§", ""))
def test_f3_2_f3_3_the_quota_of_every_offer_as_a_deployment(ordered: Order, row: str) -> None:
    """F§3.2, F§3.3: given whole to a deployment of its type, it is the limit that the header and the refusal say."""
    quotas = ENTERPRISE_DEFAULT_CARD_MSDN_STUDENT[row].split()
    section, _, model = row.partition(" ")
    kind = "GlobalBatch" if section == "F§3.2" else "DataZoneBatch"
    units = [AZURE_LIMITS[quota] // 1_000 for quota in quotas]
    made = ordered("azure", deployments={
        f"offer-{n}": {"model": model, "type": kind, "capacity": capacity} for n, capacity in enumerate(units)
    })  # fmt: skip
    for n, quota in enumerate(quotas):
        accepted = made.surface.post_batch(made.surface.upload(made.surface.line(model=f"offer-{n}")))

        assert accepted.headers["deployment-maximum-enqueued-tokens"] == str(AZURE_LIMITS[quota])
        said = refused_by(made, f"offer-{n}", AZURE_LIMITS[quota])
        assert f"configured limit of {quota} for the deployment 'offer-{n}'" in said


@pytest.mark.emulator_only
@every_azure
def test_f3_4_the_deployments_own_capacity_bites_not_the_sum(ordered: Order, name: str) -> None:
    """F§3.4: a full deployment leaves another one of the resource alone."""
    made = ordered(name, deployments={"full": {"capacity": 30}, "free": {"capacity": 30}})
    refused_by(made, "full", 30_000)

    assert made.surface.run(made.surface.line(model="free"))["status"] == "completed"


AZURE_PRESETS = {
    "azure-30k": "30K", "azure-50k": "50K", "azure-msdn": "90K", "azure-credit-card": "50M", "azure-default": "200M",
    "azure-5b": "5B", "azure-15b": "15B",
}  # fmt: skip


@pytest.mark.emulator_only
@pytest.mark.parametrize(("preset", "shown"), AZURE_PRESETS.items(), ids=list(AZURE_PRESETS))
def test_f3_2_presets_of_the_offers(ordered: Order, preset: str, shown: str) -> None:
    """F§3.2: an offer's quota by its name."""
    made = ordered("azure", preset=preset, validating=0.02, start=0.01, finalizing=0.01)

    assert f"configured limit of {shown} for" in refused_by(made, "gpt-4.1", AZURE_LIMITS[shown])


# -- F§3.5: OpenAI's queues by tier ----------------------------------------------------------------------------------------

K, M, B = 10**3, 10**6, 10**9
QUEUES: list[tuple[str, tuple[int, int, int, int, int]]] = [
    *((name, (90 * K, 1_350 * K, 50 * M, 200 * M, 5 * B)) for name in ("gpt-4o", "gpt-4.1", "gpt-5-pro", "gpt-5.2-pro")),
    *((name, (2 * M, 20 * M, 40 * M, 1 * B, 15 * B))
      for name in ("gpt-4o-mini", "gpt-4.1-mini", "gpt-5-nano", "gpt-5.4-nano", "gpt-4.1-nano")),
    *((name, (5 * M, 20 * M, 40 * M, 1 * B, 15 * B)) for name in ("gpt-5-mini", "gpt-5.6-luna")),
    *((name, (1_500 * K, 3 * M, 100 * M, 200 * M, 15 * B))
      for name in ("gpt-5.4", "gpt-5.5", "gpt-5.6-sol", "gpt-6-astra", "gpt-6-sol", "gpt-5.2-codex")),
    *((name, (200 * K, 300 * K, 500 * K, 2 * M, 10 * M)) for name in ("o3-deep-research", "o4-mini-deep-research")),
]  # fmt: skip


@pytest.mark.emulator_only
@pytest.mark.parametrize("tier", [1, 2, 3, 4, 5])
def test_f3_5_batch_queue_limits_of_a_tier(ordered: Order, tier: int) -> None:
    """F§3.5: every model of the table; the refusal says the number with commas."""
    made = ordered("openai", preset=f"openai-tier{tier}", validating=0.02, start=0.01, finalizing=0.01)
    for model, limits in QUEUES:
        limit = limits[tier - 1]
        said = refused_by(made, model, limit)

        assert re.search(rf"reached for {re.escape(model)} in .* Limit: {limit:,} enqueued tokens\.", said), said


LONG_QUEUES: list[tuple[str, int, tuple[int, int, int, int, int]]] = [
    *((name, 128 * K, (2 * M, 20 * M, 40 * M, 100 * M, 1 * B)) for name in ("gpt-4.1", "gpt-5.2-pro")),
    ("gpt-4.1-mini", 128 * K, (5 * M, 40 * M, 80 * M, 200 * M, 2 * B)),
    ("gpt-5.5", 272 * K, (5 * M, 40 * M, 80 * M, 200 * M, 2 * B)),
]  # fmt: skip


def words(tokens: int) -> str:
    """A text of so many tokens."""
    return "a" + " word" * (tokens - 1)


@pytest.mark.emulator_only
@pytest.mark.parametrize("tier", [1, 2, 3, 4, 5])
def test_f3_5_separate_long_context_queues(ordered: Order, tier: int) -> None:
    """F§3.5: a request above the model's threshold counts in a queue of its own, whose number the refusal says."""
    made = ordered("openai", preset=f"openai-tier{tier}", validating=0.02, start=0.01, finalizing=0.01)
    for model, above, limits in LONG_QUEUES:
        limit = limits[tier - 1]
        made.provider.others_hold(limit, deployment=f"{model} (long context)", listed=False)
        batch = made.surface.run(made.surface.line(text=words(above + 1), model=model))
        said = batch["errors"]["data"][0]["message"]

        assert re.search(rf"reached for {re.escape(model)} in .* Limit: {limit:,} enqueued tokens\.", said), said
        assert made.surface.run(made.surface.line(model=model))["status"] == "completed"


@pytest.mark.emulator_only
@pytest.mark.parametrize(("tokens", "model", "status"), [
    (150_000, "gpt-4.1", "completed"), (150_000, "gpt-4.1-2025-04-14", "completed"), (127_000, "gpt-4.1", "failed"),
    (150_000, "gpt-4o", "failed"),
])  # fmt: skip
def test_f3_5_a_long_request_is_taken_where_the_ordinary_queue_is_too_small(
    ordered: Order, tokens: int, model: str, status: str
) -> None:
    """F§3.5: tier 1 has 90,000 for gpt-4.1 and 2 M for its long contexts; the ordinary queue does not feel it."""
    made = ordered("openai", preset="openai-tier1", clock="hand")
    batch_id = made.surface.create(made.surface.upload(made.surface.line(text=words(tokens), model=model)))["id"]
    made.provider.advance(1)
    held = made.provider.held()

    assert held.get(model, {"held": 0})["held"] == 0
    assert (made.surface.get(batch_id)["status"] == "failed") is (status == "failed")
    made.provider.until_idle()
    assert made.surface.get(batch_id)["status"] == status


@pytest.mark.emulator_only
@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-3-large"])
def test_f3_5_embeddings_at_tier_1(ordered: Order, model: str) -> None:
    """F§3.5: 3 M."""
    made = ordered("openai", preset="openai-tier1", validating=0.02, start=0.01, finalizing=0.01)

    assert "Limit: 3,000,000 enqueued tokens" in refused_by(made, model, 3 * M)


# -- F§4: how enqueued tokens count ----------------------------------------------------------------------------------------


def held(made: Ordered) -> int:
    """Enqueued tokens now."""
    tokens: int = made.provider.held()["gpt-4.1"]["held"]
    return tokens


@pytest.mark.emulator_only
@every_surface
def test_f4_1_counted_at_submission_released_as_a_whole(ordered: Order, name: str) -> None:
    """F§4.1: validating counts; a job at nearly its end still holds all; the end releases."""
    times: dict[str, Any] = {"validating": "10m", "start": "1s", "finalizing": "10m"}
    made = ordered(name, limit="30K", clock="hand", rate=10, **times)
    content = b"".join(made.surface.line(f"id-{i}", "word " * 100) for i in range(10))
    batch_id = made.surface.create(made.surface.upload(content))["id"]
    assert made.surface.get(batch_id)["status"] == "validating"
    assert held(made) > 0
    made.provider.advance("10m")
    whole = held(made)
    made.provider.advance("95s")
    batch = made.surface.get(batch_id)

    assert batch["status"] == "in_progress"
    assert batch["request_counts"]["completed"] >= 8
    assert held(made) == whole > 1_000
    made.provider.advance("1m")
    assert made.surface.get(batch_id)["status"] == "finalizing"
    assert held(made) == whole
    made.provider.until_idle()
    assert made.surface.get(batch_id)["status"] == "completed"
    assert held(made) == 0


@pytest.mark.emulator_only
@every_azure
def test_f4_1_headers_of_a_create(ordered: Order, name: str) -> None:
    """F§4.1: this file's tokens by the characters of its bodies ÷ 4, and the deployment's limit."""
    made = ordered(name, limit="740K")
    line = made.surface.line()
    body = re.search(rb'"body": (\{.*\})\}', line)
    assert body is not None
    answer = made.surface.post_batch(made.surface.upload(line * 1))

    assert answer.headers["deployment-enqueued-tokens"] == str(len(body[1]) // 4)
    assert answer.headers["deployment-maximum-enqueued-tokens"] == "740000"
    without = ordered(name, limit="740K", headers=False).surface
    assert "deployment-enqueued-tokens" not in without.post_batch(without.upload(without.line())).headers
