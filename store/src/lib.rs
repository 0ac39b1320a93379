//! The Raft-replicated, multi-version store on real disks.
