"""Run the daemon's own tests of what an automation relies on against the server in memory."""
# ruff: noqa: F401

from __future__ import annotations

from test_bad_input import (
    test_a_body_over_the_limit,
    test_a_json_patch_that_does_not_apply,
    test_a_merge_that_grows_the_bucket_over_the_limit,
    test_json_of_another_type,
    test_keys_are_opaque,
    test_no_json_patch,
    way,
)
from test_events import (
    test_a_snapshot_first,
    test_a_stop_tells_of_the_last_change_before_it_ends,
    test_a_token_opens_its_stream_and_ends_it,
    test_each_kind_of_change,
    test_it_goes_on_from_its_beginning_without_any_event,
    test_some_keys_only,
)
from test_holds import (
    device,
    test_a_fence_comes_before_a_precondition,
    test_a_fence_never_given_is_refused,
    test_a_hold_says_what_it_is_of,
    test_an_exclusive_hold_of_a_device_refuses_other_writes,
    test_an_exclusive_hold_of_a_job_refuses_writes_of_that_job,
    test_an_old_fence_changes_nothing,
    test_reads_take_no_notice_of_a_fence,
    test_several_fences_must_all_live,
    test_what_does_not_exclude_each_other,
    test_what_excludes_each_other,
)
from test_names import test_encoded_slashes_stay_in_the_name
from test_tokens import test_headers_that_open_nothing
from test_verbs import (
    test_a_write_that_changes_nothing,
    test_an_etag_never_repeats,
    test_any_other_preference_gives_the_bucket,
    test_guards,
    test_json_patch,
    test_json_patch_that_changes_and_then_replaces_the_whole,
    test_merge_patch,
    test_replace_remove_clear,
    test_set_merges_shallowly,
    test_the_device_bucket_is_of_all_jobs,
)
