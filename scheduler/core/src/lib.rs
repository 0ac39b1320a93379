//! Decides which node a pod runs on, and says why.
