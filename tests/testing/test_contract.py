"""What holds for the daemon holds for the server for tests: the very same tests."""
# ruff: noqa: F401, F403

from __future__ import annotations

from test_bad_input import *
from test_names import (
    test_a_context_for_each_legal_name,
    test_a_context_with_a_device_that_is_no_name,
    test_encoded_slashes_stay_in_the_name,
    test_no_path_is_resolved,
    test_what_is_not_percent_encoded_utf8,
)
from test_protocol import (
    test_a_repeated_head_with_another_body,
    test_expect_continue,
    test_head_has_no_body,
    test_http_1_0_and_any_host,
    test_pipelined_requests_are_answered_in_order,
    test_requests_in_pieces,
)
from test_tokens import (
    test_a_revoked_token_ends_at_once_on_a_kept_connection,
    test_a_token_opens_its_own_bucket_and_nothing_else,
    test_contexts_outlive_the_daemon,
    test_headers_that_open_nothing,
    test_two_tokens_at_once,
)
from test_verbs import *
