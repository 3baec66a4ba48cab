//! The mistakes that a test may switch on, each with the check that must find it (arguments of `cargo test`).

/// Every planted mistake. A test walks the sources: each is asked for somewhere.
pub const MISTAKES: &[&str] = &[
    // check: --workspace --test crash_images
    "skip-sync",
    // check: --workspace --test crash_images
    "skip-directory-sync",
    // check: --workspace --test crash_images
    "leave-what-had-no-room",
    // check: --workspace --test crash_images
    "show-what-was-not-synced",
    // check: --workspace --test crash_images
    "cut-without-a-mark",
    // check: --workspace --test crash_images
    "cut-in-silence",
    // check: --workspace --test redaction
    "redact-in-the-last-commit",
    // check: --workspace --test stories content_that_is_damaged_at_the_hub_while
    "give-up-what-is-damaged",
    // check: --workspace --test stories content_that_is_damaged_at_its_recipients_node
    "pass-over-what-is-damaged",
    // check: --workspace --test seals
    "trust-any-seal",
    // check: --workspace --test damage_tables
    "serve-unverified",
    // check: --workspace --test simulation nothing_acknowledged
    "answer-before-append",
    // check: --workspace --test simulation nothing_acknowledged
    "apply-before-append",
    // check: --workspace --test simulation nothing_acknowledged
    "forget-request-ids",
    // check: --workspace --test simulation nothing_acknowledged
    "forget-cursors",
    // check: --workspace --test simulation nothing_acknowledged
    "judge-before-the-feed",
    // check: --workspace --test simulation nothing_acknowledged
    "lose-receipts",
    // check: --workspace --test simulation nothing_acknowledged
    "pack-again",
    // check: --workspace --test simulation nothing_acknowledged
    "pack-what-was-recorded",
    // check: --workspace --test simulation nothing_acknowledged
    "reuse-a-mailbox-number",
    // check: --workspace --test simulation nothing_acknowledged
    "trim-what-was-said",
    // check: --workspace --test simulation nothing_acknowledged
    "stand-for-one-entry-less",
    // check: --workspace --test stories old_segments_go
    "trim-what-somebody-waits-for",
    // check: --workspace --test stories one_whose_leave_the_hub_forgot
    "serve-before-the-feed",
    // check: --workspace --test stories one_whose_leave_the_hub_forgot
    "call-it-healed-too-early",
    // check: --workspace --test stories healing_hub
    "judge-again-what-stood",
    // check: --workspace --test rules
    "forget-the-watermark",
    // check: --workspace --test stories healing_hub
    "take-a-repeat-for-new",
    // check: --workspace --test stories backup
    "restore-in-the-old-history",
    // check: --workspace --test snapshots
    "take-any-snapshot",
    // check: --workspace --test stories a_copy_that_is_not_served
    "fence-in-memory-only",
    // check: --workspace --test sequencer behind_the_fact
    "record-of-the-other-copy",
    // check: --workspace --test stories a_node_that_starts_over_behind_a_hub
    "wait-at-a-hole",
    // check: --workspace --test stories a_held_node
    "serve-the-held",
    // check: --workspace --test stories idle_streams_of_an_older_run
    "keep-streams-of-the-other-copy",
    // check: -p concord-node --lib a_right_that_goes_while
    "give-without-right",
    // check: --workspace --test stories every_bad_certificate
    "let-any-authority-issue",
    // check: --workspace --test stories who_is_on_a_revocation_list
    "take-what-was-taken-back",
    // check: --workspace --test stories who_is_named_by_a_list
    "keep-what-is-connected",
    // check: --workspace --test stories a_node_ends_its_connections_to_a_hub
    "keep-what-was-dialled",
    // check: --workspace --test stories a_file_that_does_not_count
    "forget-the-last-good-list",
    // check: --workspace --test stories every_method_answers_exactly
    "let-anybody-call",
    // check: --workspace --test stories every_method_answers_exactly
    "take-anybody-for-an-agency",
    // check: --workspace --test stories the_supervisor_hears
    "ready-before-the-ports",
    // check: --workspace --test stories the_watchdog_hears
    "live-by-the-clock",
    // check: --workspace --test batteries canaries
    "log-the-title",
    // check: --workspace --test batteries canaries
    "forget-the-narrowing",
    // check: --workspace --test batteries canaries
    "show-what-others-sent",
    // check: --workspace --test sequencer an_overdue_amendment
    "leave-before-the-lapse",
    // check: --workspace --test simulation nothing_acknowledged
    "withdraw-without-the-receipt",
    // check: --workspace --test stories what_is_withdrawn_before
    "deliver-the-withdrawn",
    // check: -p concord-node --lib only_its_own_origin
    "withdraw-for-anyone",
    // check: -p concord-node --lib behind_a_restore
    "trust-the-restored",
    // check: -p concord-node --lib a_cursor_of_before
    "take-cursors-of-before",
    // check: -p concord-node --lib what_nobody_is_known_to_have_sent
    "take-anybodys-for-its-own",
    // check: -p concord-node --lib what_an_agency_may_not_have_is_explained
    "explain-without-right",
    // check: --workspace --test simulation an_end_of_a_right
    "end-the-leavers-streams-alone",
    // check: --workspace --test simulation an_end_of_a_right
    "hold-who-comes-only",
    // check: --workspace --test simulation an_end_of_a_right
    "say-left-of-all",
    // check: --workspace --test simulation what_others_have
    "date-by-the-journal",
    // check: --workspace --test simulation what_others_have
    "count-others-in-the-feed",
    // check: --workspace --test batteries canaries
    "deliver-what-expired",
    // check: --workspace --test batteries canaries
    "give-what-names-others",
    // check: -p concord-node --lib what_is_strict
    "give-strict-to-all",
    // check: --workspace --test stories one_signature_is_not_enough
    "count-one-officer-twice",
    // check: --workspace --test stories one_signature_is_not_enough
    "enrol-before-quorum",
    // check: --workspace --test stories an_officer_who_is_lost
    "complete-what-a-lost-officer-signed",
    // check: -p concord-node --lib keys_that_came_after
    "count-any-later-key",
    // check: --workspace --test identity a_request_that_does_not_prove_its_key
    "certify-a-key-without-its-proof",
    // check: --workspace --test identity a_new_list_names_all_that_those_before_it_named
    "forget-who-was-taken-back-before",
    // check: --workspace --test simulation an_end_of_a_right
    "deliver-of-the-time-between",
    // check: --workspace --test stories an_agreement_among_each
    "count-who-has-not-consented",
    // check: --workspace --test stories whom_one_calls_is_each_states_own_word
    "keep-contacts-to-oneself",
    // check: --workspace --test stories the_secretariat_is_on_an_agreement_like_a_state
    "let-the-secretariat-speak-twice",
    // check: --workspace --test stories the_list_of_an_issuer_that_grew_too_old
    "let-a-lapsed-list-count-on",
    // check: -p concord-node --lib what_does_not_hold_stays
    "take-what-does-not-hold",
    // check: -p concord-node --lib what_holds_after_all_is_given
    "let-cursors-take-what-is-late",
    // check: -p concord-server --lib what_peers_would_refuse
    "take-any-certificate",
    // check: --workspace --test closing a_connection_ends_with_the_certificate_of_the_server
    "outlive-the-servers-certificate",
];
