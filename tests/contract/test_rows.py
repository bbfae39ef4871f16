"""Every row of the facts' tables of statuses, times, ends, limits and errors (F§2, F§3, F§5) has a test of its own."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.contract.test_batch_errors import AZURE_ROWS, OPENAI_ROWS
from tests.contract.test_lifecycle import TIMES

HERE: Final = Path(__file__).parent
FILES: Final = ("lifecycle", "limits", "http_errors", "batch_errors")

BY_TEST: Final = {
    "F§2.1 validating → in_progress → finalizing → completed": "test_f2_1_validating_in_progress_finalizing_completed",
    "F§2.1 validating → failed": "test_f2_1_validating_failed",
    "F§2.1 cancelling → cancelled": "test_f2_1_cancelling_cancelled_from_each_status",
    "F§2.1 the spelling of cancelled": "test_f2_1_statuses_are_lowercase_and_known",
    "F§2.3 OpenAI expires": "test_f2_3_openai_expires_after_24_hours",
    "F§2.3 Azure goes on": "test_f2_3_azure_goes_on_after_24_hours",
    "F§2.3 Azure expires, the table says": "test_f2_3_azure_expires_where_the_setting_says_so",
    "F§2.3 cancel": "test_f2_3_cancelling_takes_time_and_holds_its_tokens",
    "F§2.4 completed, all good": "test_f2_4_completed_all_good",
    "F§2.4 completed, all lines failed": "test_f2_4_completed_all_lines_failed",
    "F§2.4 failed": "test_f2_4_failed",
    "F§2.4 expired": "test_f2_4_expired",
    "F§2.4 cancelled": "test_f2_4_cancelled",
    "F§2.4 status_code 0, missing lines": "test_f2_4_lines_of_status_0_and_missing_lines",
    "F§2.5 OpenAI's line": "test_f2_5_output_line_of_openai",
    "F§2.5 Azure's line": "test_f2_5_output_line_of_azure",
    "F§2.5 a line with an HTTP error": "test_f2_5_a_line_with_an_http_error",
    "F§2.5 a filtered prompt": "test_f2_5_a_filtered_prompt",
    "F§2.5 a filtered completion": "test_f2_5_a_filtered_completion",
    "F§2.5 order": "test_f2_5_order_is_not_guaranteed",
    "F§2.6 retention": "test_f2_6_retention",
    "F§3.1 lines per file, Azure": "test_f3_1_lines_per_file_100000_are_taken_on_azure",
    "F§3.1 lines per file, OpenAI": "test_f3_1_lines_per_file_50000_are_taken_on_openai",
    "F§3.1 file size": "test_f3_1_file_size_by_the_literal_number",
    "F§3.1 input files without expiry": "test_f5_2_upload_past_500",
    "F§3.1 input files with expiry": "test_f3_1_input_files_with_expiry_have_a_limit_of_their_own",
    "F§3.1 output files do not count": "test_f3_1_output_files_do_not_count",
    "F§3.1 input files, OpenAI": "test_f3_1_openai_has_no_limit_of_files",
    "F§3.1 upload rate": "test_f3_1_upload_rate",
    "F§3.1 batch creations": "test_f3_1_batch_creations_2000_an_hour_on_openai",
    "F§3.1 simultaneous batches": "test_f3_1_simultaneous_batches_are_bounded_by_tokens_only",
    "F§3.1 images, messages, tools": "test_f3_1_of_one_request_on_azure",
    "F§3.1 metadata": "test_f3_1_metadata_16_by_64_by_512",
    "F§3.1 output tokens": "test_f3_1_output_tokens_are_not_limited",
    "F§3.2, F§3.3 offers": "test_f3_2_presets_of_the_offers",
    "F§3.2, F§3.3 every model": "test_f3_2_f3_3_the_quota_of_every_offer_as_a_deployment",
    "F§3.4 capacity": "test_f3_4_a_deployments_capacity_is_its_limit",
    "F§3.4 the deployment's own": "test_f3_4_the_deployments_own_capacity_bites_not_the_sum",
    "F§3.5 tiers": "test_f3_5_batch_queue_limits_of_a_tier",
    "F§3.5 separate long-context queues": "test_f3_5_separate_long_context_queues",
    "F§3.5 long context, the row of gpt-4.1": "test_f3_5_a_long_request_is_taken_where_the_ordinary_queue_is_too_small",
    "F§3.5 embeddings": "test_f3_5_embeddings_at_tier_1",
    "F§5.2 token_limit_exceeded, batch level": "test_f5_2_token_limit_exceeded_after_validating",
    "F§5.2 token_limit_exceeded, fail fast": "test_f5_2_fail_fast",
    "F§5.2 elsewhere late": "test_f5_2_elsewhere_it_fails_late",
    "F§5.2 late in fail-fast regions too": "test_f5_2_the_later_failure_happens_in_fail_fast_regions_too",
    "F§5.2 invalid_request, SKU": "test_f5_2_invalid_request_for_a_deployment_that_is_no_batch_deployment",
    "F§5.2 input_modified": "test_f5_2_input_modified",
    "F§5.2 input_no_permissions": "test_f5_2_input_no_permissions",
    "F§5.2 create while file pending": "test_f5_2_create_while_file_pending",
    "F§5.2 upload past 500": "test_f5_2_upload_past_500",
    "F§5.2 upload, old api-version": "test_f5_2_upload_with_an_old_api_version",
    "F§5.2 sync chat against a batch deployment": "test_f5_2_sync_chat_against_a_batch_deployment",
    "F§5.2 wrong path, fresh deployment": "test_f5_2_wrong_path_or_fresh_deployment",
    "F§5.2 throttled": "test_f5_2_throttled",
    "F§5.2 bad key": "test_f5_2_bad_key",
    "F§5.3 queue full": "test_f5_3_queue_full",
    "F§5.3 embedding request queue full": "test_f5_3_embedding_request_queue_full",
    "F§5.3 file missing": "test_f5_3_file_missing",
    "F§5.3 file missing, HTTP 400": "test_f5_3_file_missing_right_after_upload",
    "F§5.3 endpoint not allowed": "test_f5_3_endpoint_not_allowed",
    "F§5.3 completion_window wrong": "test_f5_3_completion_window_wrong",
    "F§5.3 metadata wrong type": "test_f5_3_metadata_wrong_type",
    "F§5.3 too large for a model": "test_f5_3_too_large_for_a_model_by_the_literal_number",
    "F§5.3 upload not .jsonl": "test_f5_3_upload_not_jsonl",
    "F§5.3 upload too large": "test_f5_3_upload_too_large",
    "F§5.3 unknown batch id": "test_f5_3_unknown_batch_id",
    "F§5.3 cancel a completed batch": "test_f5_3_cancel_a_completed_batch",
    "F§5.3 cancel a failed batch": "test_f5_3_cancel_a_failed_batch",
    "F§5.3 cancel on cancelled": "test_f5_3_cancel_on_cancelled_is_accepted",
    "F§5.3 a line's 429": "test_f5_3_a_429_of_a_line_is_in_the_error_file",
}

BY_ID: Final = (
    *(("F§2.2", name) for name in (
        "Azure doc sample, 3 lines", "Azure doc sample 2", "Azure July 2024 walkthrough", "Azure blob sample",
        "Azure user, 2 lines", "OpenAI spec sample, 100 lines", "OpenAI, tiny batches in CI",
    )),
    *(("F§5.2", code) for code in (
        "invalid_json_line", "too_many_tasks", "url_mismatch", "model_not_found", "model_mismatch", "duplicate_custom_id",
        "empty_file", "invalid_request", "empty_batch", "BOM", "no model",
    )),
    *(("F§5.3", row) for row in (
        "bad JSON line", "missing custom_id", "missing method", "missing url", "missing body", "url ≠ endpoint",
        "stream true", "model unusable", "model missing", "messages missing", "duplicate id", "empty file",
        "several models in a file",
    )),
    ("F§3.1", "models per file"), ("F§3.1", "embeddings: not supported in batch"),
    ("F§3.1", "embeddings: more than 50,000 inputs"),
)  # fmt: skip
"""Rows whose tests are parameters of one: (section, how the test's id goes on)."""


@pytest.mark.parametrize("row", BY_TEST)
def test_the_row_has_a_test(row: str) -> None:
    """It is there under the name that the table says."""
    modules = [importlib.import_module(f"tests.contract.test_{name}") for name in FILES]
    assert any(callable(getattr(module, BY_TEST[row], None)) for module in modules)


@pytest.mark.parametrize(("section", "row"), BY_ID)
def test_the_row_is_a_parameter_of_a_test(section: str, row: str) -> None:
    """It is there by its id."""
    ids = [f"F§2.2 {one.row}" for one in TIMES] + [one.row for one in (*AZURE_ROWS, *OPENAI_ROWS)]
    assert any(f"{section} {row}" in one for one in ids)


@pytest.mark.parametrize("dialect", ["openai", "azure"])
def test_a_real_account_is_asked_for_large_batches_only_when_told(dialect: str) -> None:
    """``make contract BASE_URL=…`` skips what is ``costly`` without PAY=1."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONTRACT", "PYTEST"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-m",
        "costly",
        str(HERE / "test_limits.py"),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        env=kept | {"CONTRACT_BASE_URL": "http://127.0.0.1:9", "CONTRACT_DIALECT": dialect},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert f"[{2 if dialect == 'azure' else 1}] " in "".join(
        line for line in done.stdout.splitlines() if "PAY=1" in line
    )


def test_no_test_of_a_row_is_missing_in_the_table() -> None:
    """A new test of F§2, F§3 or F§5 says here which row it is for."""
    found = {
        name
        for file in FILES
        for name in vars(importlib.import_module(f"tests.contract.test_{file}"))
        if name.startswith(("test_f2_", "test_f3_", "test_f5_"))
    }
    beyond = {"test_f2_2_observed_timing", "test_f5_1_forbidden", "test_f5_1_not_found_for_files_and_uploads",
              "test_f5_1_a_body_that_is_no_object", "test_f5_1_a_path_that_is_none",
              "test_f5_3_too_large_for_a_model"}  # fmt: skip
    assert found - set(BY_TEST.values()) == beyond
