"""What holds for the daemon holds for the server for tests: the very same tests."""
# ruff: noqa: F401, F403

from __future__ import annotations

from test_bad_input import *
from test_events import (
    test_a_gap_is_told,
    test_a_snapshot_first,
    test_a_stop_tells_of_the_last_change_before_it_ends,
    test_a_token_opens_its_stream_and_ends_it,
    test_a_wrong_parameter_is_refused,
    test_each_kind_of_change,
    test_head_has_no_stream,
    test_it_goes_on_across_a_restart,
    test_it_goes_on_from_its_beginning_without_any_event,
    test_it_goes_on_where_it_was,
    test_large_buckets_are_told_in_order,
    test_nothing_is_missed_or_told_twice_under_load,
    test_of_a_device_and_of_all,
    test_of_an_automation,
    test_some_keys_only,
)
from test_holds import (
    device,
    test_a_device_waits_for_its_jobs_and_they_for_it,
    test_a_fence_comes_before_a_precondition,
    test_a_fence_never_given_is_refused,
    test_a_hold_says_what_it_is_of,
    test_a_malformed_fence_is_refused,
    test_a_malformed_request_holds_nothing,
    test_a_second_one_is_refused_and_told_who_holds_it,
    test_a_wait_ends_in_time,
    test_a_waiter_for_an_exclusive_hold_refuses_nothing,
    test_a_waiter_that_goes_away_leaves_the_queue,
    test_an_exclusive_hold_of_a_device_refuses_other_writes,
    test_an_exclusive_hold_of_a_job_refuses_writes_of_that_job,
    test_an_old_fence_changes_nothing,
    test_an_operator_lists_and_ends_holds,
    test_coming_back_needs_a_restart,
    test_event_streams_tell_holds,
    test_it_is_released_by_shutting_down_the_sending_half,
    test_reads_take_no_notice_of_a_fence,
    test_several_fences_must_all_live,
    test_the_connection_is_used_again_after_a_refusal,
    test_waiters_are_served_first_come_first_served,
    test_what_a_fence_is_good_for,
    test_what_does_not_exclude_each_other,
    test_what_excludes_each_other,
)
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
    test_refused,
    test_requests_in_pieces,
)
from test_tokens import (
    test_a_label_is_told_wherever_its_context_is,
    test_a_revoked_token_ends_at_once_on_a_kept_connection,
    test_a_token_opens_its_own_bucket_and_nothing_else,
    test_contexts_outlive_the_daemon,
    test_headers_that_open_nothing,
    test_two_tokens_at_once,
)
from test_verbs import *
