//! Pure client machinery: list-watch cache, work queue, backoff, leader election.
