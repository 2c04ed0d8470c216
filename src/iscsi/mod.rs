//! iSCSI (RFC 7143): initiator and target over one sans-IO core.
//!
//! ```no_run
//! # async fn example() -> Result<(), flowrun::iscsi::Error> {
//! use flowrun::iscsi::{LoginOptions, Session};
//!
//! let options = LoginOptions::new("10.0.0.7:3260", "iqn.2026-01.test:disk", "iqn.2026-01.test:me");
//! let disk = Session::login(options).await?;
//! disk.write(0, bytes::Bytes::from(vec![0; 4096])).await?;
//! disk.flush().await?;
//! disk.logout().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Conformance
//! What of RFC 7143 is here, and by which tests that is known; the numbers are its sections.
//!
//! - **Login (6, 11.12)**: security and operational stage, text in several PDUs; one connection.
//!   `without_authentication`, `first_request_on_the_wire`, `continued_text_is_put_together`,
//!   `a_target_cannot_jump_or_go_in_circles`
//! - **CHAP (12.1.3)**: one-way and mutual; MD5, SHA-1, SHA-256, SHA3-256. The initiator offers
//!   `8,5,7,6`, the target takes the strongest. Kerberos and SRP are refused. `vectors`,
//!   `with_chap_in_one_and_both_directions`, `a_reflected_challenge_is_refused_by_both_ends`,
//!   `authenticates_to_tgt_and_tgt_to_us`, `libiscsi_authenticates_to_our_target`
//! - **Redirection (11.13.5)**: the initiator follows four; the target has none.
//!   `redirections_are_followed_but_not_for_ever`
//! - **SendTargets (13.3)**: both ends. `finds_what_is_there_and_says_what_is_not`,
//!   `libiscsi_reads_our_target`
//! - **HeaderDigest, DataDigest (13.1)**: None and CRC32C. A wrong digest ends the connection;
//!   the initiator makes it anew. `writes_to_tgt_tuned_with_digests`,
//!   `required_digests_against_a_target_without`, `a_flipped_bit_of_a_header_is_a_wrong_digest`,
//!   `flipped_bits_never_reach_the_disk_or_the_reader`
//! - **InitialR2T, ImmediateData, MaxBurstLength, FirstBurstLength, MaxRecvDataSegmentLength
//!   (13.10 to 13.14)**: any values. `data_arrives`, `a_burst_is_cut_to_the_targets_segments`
//! - **MaxOutstandingR2T (13.17)**: 16 for the initiator, 1 for the target.
//!   `r2ts_outside_of_the_data_are_refused`
//! - **DataPDUInOrder, DataSequenceInOrder (13.18, 13.19)**: always Yes.
//!   `what_breaks_the_protocol_ends_the_session_and_is_named`
//! - **MaxConnections, ErrorRecoveryLevel (13.2, 13.20)**: always 1 and 0, so there is no SNACK.
//!   **DefaultTime2Wait (13.15)** is waited for. **IFMarker, OFMarker**: No. Other keys, as those
//!   of RFC 7144: NotUnderstood. `each_key_by_its_rule`, `refused_and_broken_answers`
//! - **CmdSN and the window (4.2.2.1)**: a gap ends the connection, as TCP keeps the order; a
//!   StatSN that leaps is followed. `the_command_window_is_respected`,
//!   `the_target_keeps_the_command_order`, `what_is_only_odd_is_taken`
//! - **NOP (11.18, 11.19)**: answered by both ends, sent by both into silence.
//!   `pings_are_answered_both_ways`, `a_silent_connection_is_made_anew`
//! - **Asynchronous messages (11.9)**: the initiator logs out and in again where the target wants
//!   it; the target sends none. `a_target_that_drops_us_is_logged_in_to_again`,
//!   `a_target_that_wants_us_gone_gets_its_logout`
//! - **Reject (11.17)**: of a data digest, the connection is made anew; else the session ends,
//!   and the reason is named. `what_breaks_the_protocol_ends_the_session_and_is_named`
//! - **Task management (11.5)**: the initiator sends ABORT TASK, CLEAR TASK SET and LOGICAL UNIT
//!   RESET. The target has these, ABORT TASK SET and TARGET WARM RESET; it refuses TARGET COLD
//!   RESET, CLEAR ACA and TASK REASSIGN. `an_abort_waits_for_the_running_task`,
//!   `our_target_passes_libiscsis_conformance_tests`
//! - **Session reinstatement (6.3.5)**: both ends.
//!   `the_same_session_is_reinstated_and_others_stay`, `a_running_disk_operation_is_waited_for`
//! - **Recovery within a session (7.1.4)**: the connection is made anew and unanswered commands
//!   are sent again, unless the unit may have lost its cache. `a_write_survives_a_thousand_cuts`,
//!   `a_restarted_target_never_hides_a_lost_cache`
//! - **Logout (11.14)**: of the session; for recovery (reason 2) it is refused.
//!   `a_dropped_session_logs_out`
//! - **Additional headers (11.2.2)**: skipped. Bidirectional commands are refused.
//!   `the_target_refuses_data_nobody_asked_for`
//! - **SCSI**: INQUIRY with its pages, READ CAPACITY, MODE SENSE, REPORT LUNS, READ and WRITE of
//!   all lengths, WRITE SAME, UNMAP, SYNCHRONIZE CACHE.
//!   `our_target_passes_libiscsis_conformance_tests`, `zeros_are_holes_on_a_thin_tgt`
//! - **Persistent reservations (SPC-5 5.14)**: all kinds on the target, but for REGISTER AND MOVE
//!   and keys that outlive power. The initiator reserves its disk.
//!   `only_the_newest_owner_writes_to_tgt`,
//!   `nothing_of_an_older_owner_lands_once_a_newer_one_is_in`
//! - **Hostile peers**: `a_target_never_harms_the_initiator`,
//!   `an_initiator_never_harms_the_target`, `made_up_pdus_never_harm_either`,
//!   `garbage_costs_only_its_own_connection`

mod error;
mod initiator;
mod io;
pub mod proto;
mod rooms;
pub mod scsi;
pub mod target;

pub use error::{Error, Failure, Result};
pub use initiator::{LoginOptions, LunInfo, Session, discover};
pub use proto::chap::Chap;
pub use proto::negotiate::DigestPolicy as Digests;
pub use proto::session::DiscoveredTarget;
